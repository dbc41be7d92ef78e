"""The SPIFFE Broker API over real TLS: who may ask, for whom, until when, and what the refusals say."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.descriptor_pool import DescriptorPool
from grpclib.const import Cardinality, Status
from grpclib.exceptions import StreamTerminatedError

from attestor._proto import reflection_pb2
from attestor._proto import spiffe_broker_pb2 as pb
from attestor.wire import reflection
from attestor.wire import spiffe_broker as wire
from attestor.wire.spiffe_broker import PodReference, ProcessReference, TaskReference
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.der import split
from ca.spiffe.jwtsvid import parse_unverified
from ca.tls import TlsMaterial
from fakes.broker_api import (
    JWT,
    METHODS,
    X509,
    Broker,
    broker_api,
    call_at,
    ends,
    heard,
    opened,
    outcome,
    process,
    request_for,
)
from fakes.issuer import identity
from fakes.pki import TestAuthority
from fakes.revocations import make_list
from fakes.tls_ends import CLOCK, End

NAMES = [one[0].rpartition("/")[2] for one in METHODS]
INVALID, NOT_FOUND, NOT_ENTITLED = "WORKLOAD_REFERENCE_INVALID", "WORKLOAD_NOT_FOUND", "WORKLOAD_NOT_ENTITLED"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """It listens."""
    async with broker_api(tmp_path) as one:
        yield one


@pytest.mark.clause("BR-1", "BR-7")
async def test_a_process_that_never_called_is_served(broker: Broker) -> None:
    """By its number: attested by us, with an instance of its own; all four methods answer at once."""
    with process() as one:
        async with broker.channel() as channel:
            request = request_for(X509, ProcessReference(one.pid))
            async with opened(channel, X509, request) as stream:
                (svid,) = (await heard(stream)).svids
                assert svid.spiffe_id == "spiffe://example.org/agent"
                chain = split(svid.x509_svid, "chain", 8)
                peer = x509svid.verify(chain, broker.agent.issuer.bundles, broker.agent.clock.now())
                assert peer.instance in broker.agent.holdings.live().instances
                held = [each for each in broker.agent.holdings if each.name.pid == one.pid]
                assert [each.instance for each in held] == [peer.instance]
        for method in METHODS:
            assert await outcome(broker, method, ProcessReference(one.pid)) == (Status.OK, None)


@pytest.mark.clause("BR-1")
async def test_an_address_serves_as_well_as_a_socket(broker: Broker) -> None:
    """The same over TCP."""
    with process() as one:
        async with call_at(broker.address, broker.caller(), X509, ProcessReference(one.pid)) as stream:
            assert len((await heard(stream)).svids) == 1


@pytest.mark.clause("BR-22")
async def test_a_stream_ends_with_the_process(broker: Broker) -> None:
    """NotFound with its reason, and nothing is held of it any more."""
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as stream:
            await heard(stream)
            one.kill()
            assert await ends(stream) == (Status.NOT_FOUND, NOT_FOUND)
        assert len(broker.agent.holdings) == 0


@pytest.mark.clause("BR-18")
async def test_a_rotation_is_pushed_and_nothing_is_sent_twice(broker: Broker) -> None:
    """The whole state again, when it is another; a workload that is only referred to stays fresh."""
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as stream:
            first = (await heard(stream)).svids[0]
            for _ in range(3):
                broker.agent.holdings.announce()
                await broker.agent.clock.settle()
            await broker.agent.clock.advance(31 * 60)
            await broker.agent.tick()
            second = (await heard(stream)).svids[0]
    assert first.x509_svid != second.x509_svid


async def test_a_withdrawn_identity_ends_the_stream(broker: Broker) -> None:
    """PermissionDenied: the process is there, and entitled to nothing."""
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as stream:
            await heard(stream)
            broker.agent.issuer.given, broker.agent.issuer.rules_version = (lambda _: ()), "2"
            await broker.agent.tick()
            assert await ends(stream) == (Status.PERMISSION_DENIED, NOT_ENTITLED)


@pytest.mark.clause("BR-26")
async def test_a_token_of_the_identity_asked_for(broker: Broker) -> None:
    """FetchJWTSVID honours `spiffe_id`; one that the workload has not is refused, as is no audience."""
    authority = broker.authority
    broker.agent.issuer.given = lambda _: (identity(authority.id("/a")), identity(authority.id("/b")))
    with process() as one:
        reference = ProcessReference(one.pid)
        async with broker.channel() as channel:
            request = request_for(JWT, reference, spiffe_id="spiffe://example.org/b", audience=["x"])
            async with opened(channel, JWT, request) as stream:
                (svid,) = (await heard(stream)).svids
        token = parse_unverified(svid.svid)
        assert (svid.spiffe_id, str(token.id), token.audience) == (str(authority.id("/b")),) * 2 + (("x",),)
        wrong = await outcome(broker, JWT, request_for(JWT, reference, spiffe_id="spiffe://example.org/c"))
        assert wrong == (Status.PERMISSION_DENIED, NOT_ENTITLED)
        for audience in ([], [""], ["a"] * 33):
            assert await outcome(broker, JWT, request_for(JWT, reference, audience=audience)) == (
                Status.INVALID_ARGUMENT,
                None,
            )


@pytest.mark.clause("BR-2")
@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_the_header_is_on_every_request(broker: Broker, method: Any) -> None:
    """Without it, or with another value, InvalidArgument: no web page can be made to ask."""
    for headers in ([], [("broker.spiffe.io", "True")], [("workload.spiffe.io", "true")]):
        found = await outcome(broker, method, ProcessReference(1), headers=headers)
        assert found == (Status.INVALID_ARGUMENT, None)


@pytest.mark.clause("BR-16")
@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_who_is_not_named_learns_nothing(broker: Broker, method: Any) -> None:
    """The same answer whether the process exists or not; neither does one with another kind of reference."""
    stranger, pods = broker.caller("/else"), broker.caller("/pods")
    with process() as one:
        for pid in (one.pid, 2**22 + 1):
            assert await outcome(broker, method, ProcessReference(pid), stranger) == (Status.PERMISSION_DENIED, None)
            found = await outcome(broker, method, ProcessReference(pid), pods)
            assert found == (Status.PERMISSION_DENIED, NOT_ENTITLED)


@pytest.mark.clause("BR-9", "BR-10", "BR-12", "BR-13", "BR-19", "BR-20", "BR-21")
@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_errors_of_references(broker: Broker, method: Any) -> None:
    """The standard's code and reason for each."""
    gone = process()
    with gone as one:
        pass
    for reference, found in (
        (None, (Status.INVALID_ARGUMENT, INVALID)),
        (ProcessReference(0), (Status.INVALID_ARGUMENT, INVALID)),
        (ProcessReference(-5), (Status.INVALID_ARGUMENT, INVALID)),
        (PodReference(), (Status.INVALID_ARGUMENT, INVALID)),
        (TaskReference("../node"), (Status.INVALID_ARGUMENT, INVALID)),
        (TaskReference(".."), (Status.INVALID_ARGUMENT, INVALID)),
        (ProcessReference(one.pid), (Status.NOT_FOUND, NOT_FOUND)),
        (PodReference(uid="7d2f"), (Status.NOT_FOUND, NOT_FOUND)),
        (TaskReference("t1"), (Status.NOT_FOUND, NOT_FOUND)),
        (ProcessReference(os.getpid()), (Status.PERMISSION_DENIED, NOT_ENTITLED)),
    ):
        asked = request_for(method, reference)
        assert await outcome(broker, method, asked) == found, reference


@pytest.mark.clause("BR-9", "BR-14", "BR-15")
@pytest.mark.parametrize(
    "packed",
    [
        Packed(type_url="type.googleapis.com/other.Reference", value=b""),
        Packed(type_url="WorkloadPIDReference", value=b"\x08\x01"),
        Packed(type_url=wire.PID_TYPE, value=b"\x0a\xff\xff\xff\xff\x0f"),
        Packed(type_url=wire.PID_TYPE, value=b"\x08\x01" * 4000),
        Packed(
            type_url=wire.OBJECT_TYPE,
            value=pb.KubernetesObjectReference(
                type=pb.KubernetesObjectType(plural="secrets", group="core"), uid="1"
            ).SerializeToString(),
        ),
        Packed(
            type_url=wire.OBJECT_TYPE,
            value=pb.KubernetesObjectReference(
                type=pb.KubernetesObjectType(plural="pods", group="core"), key=pb.KubernetesObjectKey(name="x")
            ).SerializeToString(),
        ),
    ],
    ids=["type", "no prefix", "cut off", "giant", "kind", "no namespace"],
)
async def test_hostile_references(broker: Broker, packed: Packed) -> None:
    """InvalidArgument with the reason, for a client that sends anything."""
    request = pb.SubscribeToX509SVIDRequest(reference=pb.WorkloadReference(reference=packed))
    assert await outcome(broker, X509, request) == (Status.INVALID_ARGUMENT, INVALID)


@pytest.mark.clause("BR-17", "BR-25", "BR-27")
async def test_federated_bundles_are_those_of_the_workload(broker: Broker) -> None:
    """Not the node agent's whole set."""
    given = replace(identity(broker.authority.id("/a")), federates_with=("partner.test",))
    others = [TestAuthority(name, now=CLOCK.now()).bundle() for name in ("partner.test", "stranger.test")]
    broker.agent.issuer.given = lambda _: (given,)
    broker.agent.issuer.bundles = BundleSet.of(broker.authority.bundle(), *others)
    with process() as one:
        for method in (METHODS[1], METHODS[3]):
            async with broker.call(method, ProcessReference(one.pid)) as stream:
                bundles = (await heard(stream)).bundles
            assert set(bundles) == {"spiffe://example.org", "spiffe://partner.test"}
        assert all("x5c" not in key for one in bundles.values() for key in json.loads(one)["keys"])


@pytest.mark.clause("BR-3")
async def test_tls_lets_nobody_in_without_an_svid(broker: Broker) -> None:
    """No certificate, one of a stranger's authority, one of ours forged by another domain."""
    other = TestAuthority("example.org", now=CLOCK.now())
    forged = End(TlsMaterial.of(other.leaf("/gateway"), BundleSet.of(broker.authority.bundle())),
                 BundleSet.of(broker.authority.bundle()))  # fmt: skip
    nobody = broker.caller()
    nobody.material = replace(nobody.material, chain_pem=b"", key_pem=b"")
    for caller in (forged, nobody):
        with pytest.raises((OSError, StreamTerminatedError)):
            await outcome(broker, X509, ProcessReference(1), caller)
    assert broker.refusals


async def test_an_expired_caller_gets_nothing_more(broker: Broker) -> None:
    """On the connection and the stream it had: Unauthenticated, so that it comes again with a fresh certificate."""
    short = broker.caller(svid=broker.authority.leaf("/gateway", ttl=timedelta(minutes=10)))
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid), short) as stream:
            await heard(stream)
            await broker.agent.clock.advance(31 * 60)
            await broker.agent.tick()
            assert await ends(stream) == (Status.UNAUTHENTICATED, None)


@pytest.mark.parametrize("how", ["list", "authority"])
async def test_a_revoked_caller_gets_nothing_more(broker: Broker, how: str) -> None:
    """By its serial on a list, or with the authority that signed it."""
    svid = broker.authority.leaf("/gateway")
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid), broker.caller(svid=svid)) as stream:
            await heard(stream)
            if how == "list":
                serial = svid.chain[0].serial_number
                broker.agent.issuer.revocation_lists = (make_list(broker.authority, [serial], now=CLOCK.now()),)
            else:
                held = next(iter(broker.agent.holdings))
                broker.agent.issuer.withdrawn = frozenset({next(iter(held.leaves.values())).authority})
            await broker.agent.clock.advance(31 * 60)
            await broker.agent.tick()
            assert await ends(stream) == (Status.UNAUTHENTICATED, None)


async def test_strangers_hold_few_connections(broker: Broker) -> None:
    """Whoever has an SVID of the domain may knock; the named keep their places."""
    async with AsyncExitStack() as stack:
        for _ in range(8):
            channel = await stack.enter_async_context(broker.channel(broker.caller("/else")))
            await channel.__connect__()
        with pytest.raises((OSError, StreamTerminatedError)):
            await outcome(broker, X509, ProcessReference(1), broker.caller("/else"))
        with process() as one:
            assert await outcome(broker, X509, ProcessReference(one.pid)) == (Status.OK, None)


@pytest.mark.clause("BR-5", "BR-8")
async def test_nothing_else_is_offered_there(broker: Broker) -> None:
    """The standard's four, and no method of the Workload API."""
    served = {one[0] for one in METHODS}
    assert served == {f"/spiffe.broker.API/{name}" for name in (
        "SubscribeToX509SVID", "SubscribeToX509Bundles", "FetchJWTSVID", "SubscribeToJWTBundles"
    )}  # fmt: skip
    for path in ("/spiffe.broker.API/Other", "/SpiffeWorkloadAPI/FetchX509SVID"):
        method = (path, *X509[1:])
        assert await outcome(broker, method, request_for(X509, ProcessReference(1))) == (Status.UNIMPLEMENTED, None)


@pytest.mark.clause("BR-24")
async def test_hints_are_unique_and_no_answer_is_empty(broker: Broker) -> None:
    """The second of the same hint goes without; nothing at all is a refusal."""
    broker.agent.issuer.given = lambda _: tuple(identity(broker.authority.id(path), "same") for path in ("/a", "/b"))
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as stream:
            found = [(svid.spiffe_id, svid.hint) for svid in (await heard(stream)).svids]
        assert found == [("spiffe://example.org/a", "same"), ("spiffe://example.org/b", "")]
        broker.agent.issuer.given, broker.agent.issuer.rules_version = (lambda _: ()), "2"
        assert await outcome(broker, X509, ProcessReference(one.pid)) == (Status.PERMISSION_DENIED, NOT_ENTITLED)


@pytest.mark.clause("BR-6")
async def test_a_client_without_stubs_can_ask_what_there_is(broker: Broker) -> None:
    """Reflection, under the standard's names; the header is demanded there too."""
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="spiffe.broker.API")
    method = (reflection.INFO, Cardinality.STREAM_STREAM, type(asked), reflection_pb2.ServerReflectionResponse)
    async with broker.call(method, asked) as stream:
        files = (await heard(stream)).file_descriptor_response.file_descriptor_proto
    pool = DescriptorPool()
    for one in reversed(files):
        pool.AddSerializedFile(one)
    service = pool.FindServiceByName("spiffe.broker.API")
    assert [one.name for one in service.methods] == NAMES
    request = service.methods_by_name["SubscribeToX509SVID"].input_type
    assert request.full_name == "spiffe.broker.SubscribeToX509SVIDRequest"
    assert await outcome(broker, method, asked, headers=[]) == (Status.INVALID_ARGUMENT, None)
