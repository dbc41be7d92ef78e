"""SPIFFE_Workload_Endpoint.md and SPIFFE_Workload_API.md on a real socket, by their messages as they travel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import Message
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from attestor._proto import workload_pb2 as pb
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.workload_api import Profiles, WorkloadApi
from attestor.wire import workload as wire
from ca.errors import Malformed
from ca.spiffe import der, proof
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.replay import ReplayCache
from ca.spiffe.witsvid import WitSvid
from fakes.issuer import identity
from fakes.pki import TestAuthority
from fakes.wits import HERE
from fakes.workload import START, Agent, workload_api

STREAM, UNARY = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
CALLS: Mapping[str, tuple[Cardinality, Any, Any]] = {
    "FetchX509SVID": (STREAM, pb.X509SVIDRequest(), pb.X509SVIDResponse),
    "FetchX509Bundles": (STREAM, pb.X509BundlesRequest(), pb.X509BundlesResponse),
    "FetchJWTSVID": (UNARY, pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse),
    "FetchJWTBundles": (STREAM, pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
    "ValidateJWTSVID": (UNARY, pb.ValidateJWTSVIDRequest(audience="a", svid="t"), pb.ValidateJWTSVIDResponse),
    "FetchWITSVID": (STREAM, pb.WITSVIDRequest(), pb.WITSVIDResponse),
    "FetchWITBundles": (STREAM, pb.WITBundlesRequest(), pb.WITBundlesResponse),
}
HEADER = [("workload.spiffe.io", "true")]
OWN = "spiffe://example.org"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent that listens."""
    async with workload_api(tmp_path) as one:
        yield one


@asynccontextmanager
async def opened(
    agent: Agent, name: str, request: Message | None = None, headers: list[tuple[str, str]] = HEADER
) -> AsyncIterator[Any]:
    """One call, its request sent."""
    cardinality, usual, reply = CALLS[name]
    async with Channel(path=str(agent.path)) as channel:
        path = f"/SpiffeWorkloadAPI/{name}"
        async with channel.request(path, cardinality, type(usual), reply, metadata=headers) as stream:
            await stream.send_message(request or usual, end=True)
            yield stream


async def first(agent: Agent, name: str, request: Message | None = None) -> Any:
    """The first message of an answer."""
    async with opened(agent, name, request) as stream:
        message = await stream.recv_message()
        if CALLS[name][0] is STREAM:
            await stream.cancel()
    return message


async def code(agent: Agent, name: str, headers: list[tuple[str, str]]) -> Status:
    """How a call ends that is not answered."""
    with pytest.raises(GRPCError) as caught:
        async with opened(agent, name, headers=headers) as stream:
            await stream.recv_message()
    return caught.value.status


BAD_HEADERS: tuple[list[tuple[str, str]], ...] = (
    [],
    [("workload.spiffe.io", "True")],
    [("workload.spiffe.io", "1")],
    [("broker.spiffe.io", "true")],
)


@pytest.mark.parametrize("name", CALLS)
async def test_ep_4_a_request_without_the_header_is_refused(agent: Agent, name: str) -> None:
    """Absent, in other letters, another value, or another endpoint's."""
    for headers in BAD_HEADERS:
        assert await code(agent, name, headers) is Status.INVALID_ARGUMENT


async def test_ep_5_our_client_sends_the_header_with_every_request(agent: Agent) -> None:
    """Each of its calls is answered by an endpoint that refuses what comes without."""
    async with WorkloadApiClient(agent.address) as client:
        await client.fetch_x509()
        await client.fetch_x509_bundles()
        (token,) = await client.fetch_jwt(["server"])
        await client.fetch_jwt_bundles()
        await client.validate_jwt(token.token, "server")
        await client.fetch_wit()
        await client.fetch_wit_bundles()


@pytest.mark.clause("EP-11", "EP-15", "WL-1")
@pytest.mark.parametrize("name", CALLS.keys() - {"ValidateJWTSVID"})
async def test_ep_6_the_caller_needs_neither_tls_nor_a_proof(agent: Agent, name: str) -> None:
    """A bare connection and the header are enough: the kernel says who calls."""
    assert (await first(agent, name)).ByteSize() > 0


@pytest.mark.clause("WL-2")
async def test_ep_14_the_service_has_the_methods_of_the_standard_and_no_others(agent: Agent) -> None:
    """What else the socket serves is a service of another name."""
    api = WorkloadApi(agent.renewal, agent.issuer, agent.clock, agent.issuer.authority.trust_domain)
    assert {method.path for method in api.methods()} == {f"/SpiffeWorkloadAPI/{name}" for name in CALLS}


async def test_wl_1_a_wit_profile_that_is_off_is_unimplemented(tmp_path: Path) -> None:
    """Its two calls alone."""
    async with workload_api(tmp_path, profiles=Profiles(wit=False)) as agent:
        for name in ("FetchWITSVID", "FetchWITBundles"):
            assert await code(agent, name, HEADER) is Status.UNIMPLEMENTED
        assert (await first(agent, "FetchX509SVID")).svids


@pytest.mark.clause("WL-5")
async def test_wl_4_every_message_is_the_whole_state(agent: Agent) -> None:
    """The first at once, and after a change of one part all the others with it."""
    other = TestAuthority("foreign.org", now=START)
    agent.issuer.given = lambda _: (*(identity(agent.issuer.authority.id(path)) for path in ("/a", "/b")),)
    async with opened(agent, "FetchX509SVID") as stream:
        before = await stream.recv_message()
        assert [each.spiffe_id for each in before.svids] == [f"{OWN}/a", f"{OWN}/b"]
        await agent.clock.advance(31 * 60)
        await agent.tick()
        after = await stream.recv_message()
        assert [each.spiffe_id for each in after.svids] == [f"{OWN}/a", f"{OWN}/b"]
        assert after.svids[0].x509_svid != before.svids[0].x509_svid
        await stream.cancel()
    agent.issuer.bundles = BundleSet.of(*agent.issuer.bundles, other.bundle())
    async with opened(agent, "FetchX509Bundles") as stream:
        whole = await stream.recv_message()
        agent.issuer.bundles = agent.issuer.bundles.with_(_another(agent).bundle())
        agent.holdings.announce()
        again = await stream.recv_message()
        assert whole.bundles.keys() == again.bundles.keys()
        assert whole.bundles[OWN] != again.bundles[OWN]
        await stream.cancel()


def _another(agent: Agent) -> TestAuthority:
    """The same trust domain under another root."""
    return TestAuthority("example.org", now=agent.clock.now())


async def test_wl_7_a_client_keeps_nothing_of_an_earlier_message() -> None:
    """What a later message leaves out is gone."""
    ours, theirs = TestAuthority("example.org"), TestAuthority("foreign.org")
    svid = ours.leaf("/agent")
    entry = wire.X509Entry(
        id=svid.id, chain=svid.chain_der(), key=svid.key_der(), bundle=ours.bundle().x509_der(), hint="main"
    )
    full = wire.encode_x509(
        wire.X509Update(svids=(entry,), crl=(b"list",), federated={theirs.trust_domain: theirs.bundle().x509_der()})
    )
    message = pb.X509SVIDResponse()
    message.CopyFrom(full)
    assert wire.decode_x509(message).federated.keys() == {theirs.trust_domain}
    message.ClearField("federated_bundles")
    message.ClearField("crl")
    message.svids[0].hint = ""
    update = wire.decode_x509(message)
    assert (dict(update.federated), update.crl, update.svids[0].hint) == ({}, (), "")


@pytest.mark.clause("WL-21", "WL-9")
async def test_wl_10_an_x509_svid_is_whole(agent: Agent) -> None:
    """Chain with its leaf first, plain PKCS#8, the bundle of its own trust domain; and hints are unique."""
    agent.issuer.given = lambda _: tuple(identity(agent.issuer.authority.id(path), "one") for path in ("/a", "/b"))
    message = await first(agent, "FetchX509SVID")
    assert [each.spiffe_id for each in message.svids] == [f"{OWN}/a", f"{OWN}/b"]
    hints = [each.hint for each in message.svids if each.hint]
    assert len(hints) == len(set(hints))
    for each in message.svids:
        chain = [x509.load_der_x509_certificate(one) for one in der.split(each.x509_svid, "the chain", 8)]
        key = serialization.load_der_private_key(each.x509_svid_key, password=None)
        assert key.public_key() == chain[0].public_key()
        assert [link.issuer for link in chain[:-1]] == [link.subject for link in chain[1:]]
        assert each.bundle == agent.issuer.authority.bundle().x509_der()


@pytest.mark.clause("WL-12", "WL-15", "WL-20")
async def test_wl_13_the_own_bundle_is_in_every_answer_with_bundles(agent: Agent) -> None:
    """Under the trust domain's SPIFFE ID, each kind with keys of its own kind and no others."""
    certificates = (await first(agent, "FetchX509Bundles")).bundles[OWN]
    read = Bundle.from_der(agent.issuer.authority.trust_domain, certificates)
    assert read.x509_authorities == (agent.issuer.authority.root,)
    for name, use in (("FetchJWTBundles", "jwt-svid"), ("FetchWITBundles", "wit-svid")):
        keys = json.loads((await first(agent, name)).bundles[OWN])["keys"]
        assert {each["use"] for each in keys} == {use}
        assert all(each["kid"] for each in keys)


async def test_wl_14_a_token_has_the_audience_asked_for(agent: Agent) -> None:
    """One of each identity, or only of the one named; without an audience there is none."""
    agent.issuer.given = lambda _: tuple(identity(agent.issuer.authority.id(path)) for path in ("/a", "/b"))
    both = await first(agent, "FetchJWTSVID", pb.JWTSVIDRequest(audience=["x", "y"]))
    assert [each.spiffe_id for each in both.svids] == [f"{OWN}/a", f"{OWN}/b"]
    one = await first(agent, "FetchJWTSVID", pb.JWTSVIDRequest(audience=["x"], spiffe_id=f"{OWN}/b"))
    assert [each.spiffe_id for each in one.svids] == [f"{OWN}/b"]
    judged = await first(agent, "ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience="y", svid=both.svids[0].svid))
    assert list(judged.claims["aud"]) == ["x", "y"]
    for request in (pb.JWTSVIDRequest(), pb.JWTSVIDRequest(audience=["x"], spiffe_id=f"{OWN}/c")):
        with pytest.raises(GRPCError) as caught:
            await first(agent, "FetchJWTSVID", request)
        assert caught.value.status in {Status.INVALID_ARGUMENT, Status.PERMISSION_DENIED}


async def test_wl_16_a_token_is_validated_as_the_document_of_tokens_has_it(agent: Agent) -> None:
    """Audience, signature, time, kind: what `jwtsvid.verify` refuses is a bad argument."""
    authority = agent.issuer.authority
    good = authority.token(now=agent.clock.now())
    judged = await first(agent, "ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience="server", svid=good))
    assert judged.spiffe_id == f"{OWN}/agent"
    assert judged.claims["sub"] == f"{OWN}/agent"
    stranger = TestAuthority("example.org", now=START)
    bad = [
        ("elsewhere", good),
        ("server", stranger.token(now=START)),
        ("server", agent.issuer.wit.token(now=START)),
        ("server", authority.token(now=START, claims={"exp": 1})),
        ("server", "not.a.token"),
        ("", good),
        ("server", ""),
    ]
    for audience, token in bad:
        with pytest.raises(GRPCError) as caught:
            await first(agent, "ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience=audience, svid=token))
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_wl_19_a_wit_comes_with_its_key(agent: Agent) -> None:
    """One of each identity, or only of the one named; token and key prove who sends a message."""
    agent.issuer.given = lambda _: tuple(identity(agent.issuer.authority.id(path)) for path in ("/a", "/b"))
    both = await first(agent, "FetchWITSVID")
    assert [each.spiffe_id for each in both.svids] == [f"{OWN}/a", f"{OWN}/b"]
    one = await first(agent, "FetchWITSVID", pb.WITSVIDRequest(spiffe_id=f"{OWN}/b"))
    assert [each.spiffe_id for each in one.svids] == [f"{OWN}/b"]
    now = agent.clock.now()
    for each in both.svids:
        svid = WitSvid.parse(each.wit_svid, each.wit_svid_key)
        shown = proof.mint(svid, HERE, now)
        peer = proof.verify(
            each.wit_svid, shown, audiences=[HERE], bundles=agent.issuer.bundles, now=now, seen=ReplayCache()
        )
        assert str(peer.id) == each.spiffe_id
    with pytest.raises(Malformed):
        WitSvid.parse(both.svids[0].wit_svid, "{}")
