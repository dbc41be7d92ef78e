"""The Workload API clause by clause, over a real socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from pydantic import ValidationError

from attestor._proto import workload_pb2 as pb
from attestor.client.errors import NoIdentity, Unsupported
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.settings import NodeAgentSettings
from attestor.node_agent.workload_api import WorkloadApi
from attestor.wire import wit
from attestor.wire import workload as wire
from ca.errors import Malformed, Unavailable
from ca.spiffe import x509svid
from ca.spiffe.id import TrustDomain
from fakes.issuer import identity
from fakes.workload import Agent, workload_api

METHODS = [
    (wire.FETCH_X509_SVID, Cardinality.UNARY_STREAM, pb.X509SVIDRequest(), pb.X509SVIDResponse),
    (wire.FETCH_X509_BUNDLES, Cardinality.UNARY_STREAM, pb.X509BundlesRequest(), pb.X509BundlesResponse),
    (wire.FETCH_JWT_SVID, Cardinality.UNARY_UNARY, pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse),
    (wire.FETCH_JWT_BUNDLES, Cardinality.UNARY_STREAM, pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
    (
        wire.VALIDATE_JWT_SVID,
        Cardinality.UNARY_UNARY,
        pb.ValidateJWTSVIDRequest(audience="a", svid="t"),
        pb.ValidateJWTSVIDResponse,
    ),
    (wit.FETCH_WIT_SVID, Cardinality.UNARY_STREAM, pb.WITSVIDRequest(), pb.WITSVIDResponse),
    (wit.FETCH_WIT_BUNDLES, Cardinality.UNARY_STREAM, pb.WITBundlesRequest(), pb.WITBundlesResponse),
]


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent that listens."""
    async with workload_api(tmp_path) as one:
        yield one


@pytest.fixture
async def client(agent: Agent) -> AsyncIterator[WorkloadApiClient]:
    """A client in this very process."""
    async with WorkloadApiClient(agent.address) as one:
        yield one


async def status(agent: Agent, method: Any, headers: list[tuple[str, str]]) -> tuple[Status, str]:
    """How one raw call ends."""
    path, cardinality, request, reply = method
    async with Channel(path=str(agent.path)) as channel:
        try:
            async with channel.request(path, cardinality, type(request), reply, metadata=headers) as stream:
                await stream.send_message(request, end=True)
                await stream.recv_message()
        except GRPCError as error:
            return error.status, error.message or ""
    return Status.OK, ""


@pytest.mark.clause("EP-1", "EP-2", "EP-6", "EP-15", "WL-10", "WL-21")
async def test_an_x509_svid_comes_with_its_key_and_bundle(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-10: everything mandatory is there, and it verifies."""
    context = await client.fetch_x509()
    (svid,) = context.svids
    assert str(svid.id) == "spiffe://example.org/agent"
    chain = [one.public_bytes(Encoding.DER) for one in svid.chain]
    assert x509svid.verify(chain, context.bundles, agent.clock.now()).instance == svid.instance


@pytest.mark.clause("WL-13", "WL-14", "WL-16")
async def test_bundles_and_tokens(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-13, WL-14, WL-16: the trust domain is in both, a token has its audience, and is judged."""
    domain = agent.issuer.authority.trust_domain
    assert (await client.fetch_x509_bundles()).get(domain) is not None
    assert (await client.fetch_jwt_bundles()).get(domain) is not None
    (token,) = await client.fetch_jwt(["server", "other"])
    assert token.audience == ("server", "other")
    validated = await client.validate_jwt(token.token, "server")
    assert validated.id == token.id
    assert validated.claims["aud"] == ["server", "other"]
    with pytest.raises(Malformed, match="another audience"):
        await client.validate_jwt(token.token, "elsewhere")
    with pytest.raises(Malformed):
        await client.validate_jwt("not.a.token", "server")


@pytest.mark.clause("WL-14")
async def test_a_token_of_one_identity(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-14: without a name one for each, with a name only that; another's is refused."""
    first, second = agent.issuer.authority.id("/a"), agent.issuer.authority.id("/b")
    agent.issuer.given = lambda _: (identity(first), identity(second))
    assert [one.id for one in await client.fetch_jwt(["x"])] == [first, second]
    assert [one.id for one in await client.fetch_jwt(["x"], second)] == [second]
    with pytest.raises(NoIdentity):
        await client.fetch_jwt(["x"], agent.issuer.authority.id("/c"))


@pytest.mark.clause("EP-4")
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one[0].rpartition("/")[2])
@pytest.mark.parametrize("headers", [[], [("workload.spiffe.io", "True")], [("workload.spiffe.io", "false")]])
async def test_without_the_header_every_call_is_invalid(agent: Agent, method: Any, headers: Any) -> None:
    """Workload Endpoint: the header is case-sensitive, and on every request."""
    code, message = await status(agent, method, headers)
    assert code is Status.INVALID_ARGUMENT
    assert "workload.spiffe.io" in message


@pytest.mark.clause("EP-13", "WL-11")
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one[0].rpartition("/")[2])
async def test_without_an_identity_every_call_is_denied(agent: Agent, method: Any) -> None:
    """WL-11."""
    agent.issuer.given = lambda _: ()
    code, _ = await status(agent, method, [wire.SECURITY_HEADER])
    assert code is Status.PERMISSION_DENIED


@pytest.mark.clause("EP-13")
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one[0].rpartition("/")[2])
async def test_before_the_server_has_spoken_every_call_is_unavailable(agent: Agent, method: Any) -> None:
    """Workload Endpoint: initialising is Unavailable, and is tried again."""
    agent.issuer.initialised = False
    code, _ = await status(agent, method, [wire.SECURITY_HEADER])
    assert code is Status.UNAVAILABLE


@pytest.mark.clause("WL-2")
async def test_what_nobody_offers_is_unimplemented(agent: Agent) -> None:
    """Endpoint: an unknown call is not tried again."""
    method = ("/SpiffeWorkloadAPI/Nothing", Cardinality.UNARY_UNARY, pb.X509SVIDRequest(), pb.X509SVIDResponse)
    code, _ = await status(agent, method, [wire.SECURITY_HEADER])
    assert code is Status.UNIMPLEMENTED


@pytest.mark.clause("WL-8", "WL-14")
async def test_a_token_without_audience_is_invalid(agent: Agent) -> None:
    """WL-8, WL-14."""
    for request in (pb.JWTSVIDRequest(), pb.JWTSVIDRequest(audience=[""]), pb.JWTSVIDRequest(audience=["a"] * 33)):
        method = (wire.FETCH_JWT_SVID, Cardinality.UNARY_UNARY, request, pb.JWTSVIDResponse)
        code, _ = await status(agent, method, [wire.SECURITY_HEADER])
        assert code is Status.INVALID_ARGUMENT


@pytest.mark.clause("WL-4", "WL-5", "WL-6")
async def test_a_rotation_is_pushed(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-4 to WL-6: the whole state at once, and again when it changed; the instance stays."""
    async with aclosing(client.watch_x509()) as updates:
        first = await anext(updates)
        await agent.clock.advance(31 * 60)
        await agent.tick()
        second = await anext(updates)
    assert second.svids[0].not_after > first.svids[0].not_after
    assert second.svids[0].instance == first.svids[0].instance


@pytest.mark.clause("WL-4", "WL-6")
async def test_a_new_bundle_is_pushed(agent: Agent, client: WorkloadApiClient) -> None:
    """To X.509 and JWT streams alike."""
    async with aclosing(client.watch_x509_bundles()) as x509, aclosing(client.watch_jwt_bundles()) as jwt:
        await anext(x509)
        await anext(jwt)
        fresh = type(agent.issuer.authority)(now=agent.clock.now())
        agent.issuer.bundles = agent.issuer.bundles.of(fresh.bundle())
        agent.holdings.announce()
        assert (await anext(x509)).get(fresh.trust_domain) != agent.issuer.authority.bundle()
        assert (await anext(jwt)).get(fresh.trust_domain) is not None


@pytest.mark.clause("WL-11")
async def test_a_withdrawn_identity_ends_the_stream(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-11: with PermissionDenied, whether by rules, by the server's word, or because the node was sent away."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "2"
        await agent.tick()
        with pytest.raises(NoIdentity):
            await anext(updates)
    agent.issuer.given, agent.issuer.rules_version = (lambda _: (identity(agent.issuer.authority.id("/x")),)), "3"
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        agent.holdings.drop_all()
        with pytest.raises(NoIdentity):
            await anext(updates)
    async with aclosing(client.watch_x509()) as updates:
        svid = (await anext(updates)).svids[0]
        agent.holdings.bar(frozenset({str(svid.instance)}))
        with pytest.raises(NoIdentity):
            await anext(updates)


@pytest.mark.clause("WL-10", "WL-17")
async def test_hints_are_unique(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-10: the second of the same name goes without one; the first stays the default (WL-17)."""
    authority = agent.issuer.authority
    agent.issuer.given = lambda _: tuple(identity(authority.id(path), "same") for path in ("/a", "/b"))
    context = await client.fetch_x509()
    assert [(svid.id.path, svid.hint) for svid in context.svids] == [("/a", "same"), ("/b", "")]


async def test_nothing_is_sent_twice(agent: Agent, client: WorkloadApiClient) -> None:
    """A wake without a change is no message."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        for _ in range(5):
            agent.holdings.announce()
            await agent.clock.settle()
        await agent.clock.advance(31 * 60)
        await agent.tick()
        assert (await anext(updates)).svids[0].not_before.minute == 30


async def test_too_many_connections_are_refused_and_the_held_ones_live(tmp_path: Path) -> None:
    """The refusal is a sentence; when one leaves there is room again."""
    async with workload_api(tmp_path, connections=4) as agent:
        first, second, third = (WorkloadApiClient(agent.address) for _ in range(3))
        async with first, second, third:
            async with aclosing(first.watch_x509()) as held:
                await anext(held)
                await second.fetch_x509()
                with pytest.raises(Unavailable, match="holds 2 connections"):
                    await third.fetch_x509()
                await agent.clock.advance(31 * 60)
                await agent.tick()
                await anext(held)
            second.close()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await third.fetch_x509()
                        break
                    except Unavailable:
                        await asyncio.get_running_loop().run_in_executor(None, int)


OTHER_PROCESS = """
import asyncio, sys
from attestor.client.workload_api import WorkloadApiClient

async def main():
    async with WorkloadApiClient(sys.argv[1]) as client:
        async for update in client.watch_x509():
            print(update.svids[0].instance, flush=True)

asyncio.run(main())
"""


@pytest.mark.clause("EP-11", "EP-12")
async def test_each_process_is_its_own_instance(agent: Agent, client: WorkloadApiClient) -> None:
    """Another process has another instance; when it is killed its instance leaves the live set."""
    own = (await client.fetch_x509()).svids[0].instance
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER_PROCESS, agent.address, stdout=-1)
    assert process.stdout is not None
    other = (await process.stdout.readline()).decode().strip()
    assert agent.holdings.live().instances == {own, other}
    process.kill()
    await process.wait()
    await agent.clock.until(lambda: agent.holdings.live().instances == {own})


async def test_an_unsupported_call_is_told_apart(agent: Agent) -> None:
    """A client knows that asking again can't help."""
    async with WorkloadApiClient(agent.address) as client:
        with pytest.raises(Unsupported):
            await client._unary("/SpiffeWorkloadAPI/Nothing", pb.X509SVIDRequest(), pb.X509SVIDResponse)


async def test_ep_5_every_call_of_our_client_carries_the_header(client: WorkloadApiClient) -> None:
    """The endpoint refuses each call without it, whatever came before on the connection, and refuses none of these."""
    (token,) = await client.fetch_jwt(["a"])
    for call in (
        client.fetch_x509(),
        client.fetch_x509_bundles(),
        client.fetch_jwt_bundles(),
        client.fetch_wit(),
        client.fetch_wit_bundles(),
        client.validate_jwt(token.token, "a"),
    ):
        assert await call


@pytest.mark.clause("WL-2")
async def test_ep_14_the_service_has_the_standard_s_methods_and_no_others(agent: Agent) -> None:
    """What is more is under other names."""
    api = WorkloadApi(agent.renewal, agent.issuer, agent.clock, agent.issuer.authority.trust_domain)
    assert {one.path for one in api.methods()} == {
        f"/SpiffeWorkloadAPI/{name}"
        for name in (
            "FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID",
            "FetchWITSVID", "FetchWITBundles",
        )
    }  # fmt: skip


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8081", "unix:///run/workload.sock", "run/workload.sock"])
def test_ep_3_the_endpoint_is_a_path_and_nothing_else(tmp_path: Path, address: str) -> None:
    """No setting opens it to a network, where nobody would say who calls."""
    with pytest.raises(ValidationError, match="absolute path"):
        NodeAgentSettings(
            trust_domain=TrustDomain.parse("example.org"),
            state=tmp_path,
            admin_socket=tmp_path / "admin.sock",
            workload_socket=Path(address),
        )
