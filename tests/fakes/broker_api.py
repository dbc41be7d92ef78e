"""A SPIFFE Broker API on a real socket with real TLS, and callers of it.

OpenSSL asks the machine's own clock, so certificates and the test's clock begin at the real time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from attestor._proto import spiffe_broker_pb2 as pb
from attestor.methods.workload.protocol import WorkloadSource
from attestor.node_agent.references import References
from attestor.node_agent.spiffe_broker_api import KINDS, SpiffeBrokerApi
from attestor.wire import spiffe_broker as wire
from attestor.wire.spiffe_broker import Reference
from ca.errors import Problem
from ca.runtime import grpc
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial
from fakes.clock import ManualClock
from fakes.issuer import FakeIssuer
from fakes.pki import TestAuthority
from fakes.tls_ends import CLOCK, End
from fakes.workload import Agent, workload_api

HEADERS = [wire.SECURITY_HEADER]
_STREAM = Cardinality.UNARY_STREAM
METHODS = [
    (wire.SUBSCRIBE_X509_SVID, _STREAM, pb.SubscribeToX509SVIDRequest, pb.SubscribeToX509SVIDResponse),
    (wire.SUBSCRIBE_X509_BUNDLES, _STREAM, pb.SubscribeToX509BundlesRequest, pb.SubscribeToX509BundlesResponse),
    (wire.FETCH_JWT_SVID, Cardinality.UNARY_UNARY, pb.FetchJWTSVIDRequest, pb.FetchJWTSVIDResponse),
    (wire.SUBSCRIBE_JWT_BUNDLES, _STREAM, pb.SubscribeToJWTBundlesRequest, pb.SubscribeToJWTBundlesResponse),
]
X509 = METHODS[0]
JWT = METHODS[2]


@dataclass
class Broker:
    """What runs: the node agent, and its Broker API."""

    agent: Agent
    path: Path
    address: tuple[str, int]
    refusals: list[Problem]

    @property
    def authority(self) -> TestAuthority:
        """Signs for everybody here."""
        return self.agent.issuer.authority

    def caller(self, path: str = "/gateway", svid: X509Svid | None = None) -> End:
        """Who asks, with a certificate of this domain or with `svid`."""
        bundles = BundleSet.of(self.authority.bundle())
        return End(TlsMaterial.of(svid or self.authority.leaf(path), bundles), bundles)

    @asynccontextmanager
    async def channel(self, caller: End | None = None) -> AsyncIterator[Channel]:
        """A connection, by default of the one who may everything."""
        async with channel_at(self.path, caller or self.caller()) as one:
            yield one

    @asynccontextmanager
    async def call(
        self, method: Any, request: Message | Reference, caller: End | None = None, headers: Any = None
    ) -> AsyncIterator[Stream[Any, Any]]:
        """A call on a connection of its own, its request sent."""
        sent = request if isinstance(request, Message) else request_for(method, request)
        async with self.channel(caller) as channel, opened(channel, method, sent, headers) as stream:
            yield stream


@asynccontextmanager
async def broker_api(folder: Path, *sources: WorkloadSource) -> AsyncIterator[Broker]:
    """`/gateway` may use every kind of reference, `/pods` only pods."""
    clock = ManualClock(CLOCK.now())
    issuer = FakeIssuer(TestAuthority(now=CLOCK.now()), clock)
    async with workload_api(folder, issuer=issuer, clock=clock, sources=sources) as agent:
        own = issuer.authority
        allowed = {own.id("/gateway"): frozenset(KINDS.values()), own.id("/pods"): frozenset({KINDS["kubernetes"]})}
        node, refusals = own.leaf("/sojourn/node/web-1"), list[Problem]()
        api = SpiffeBrokerApi(
            renewal=agent.renewal,
            references=References(agent.renewal, agent.holdings, own.trust_domain),
            issuer=issuer,
            clock=clock,
            own=own.trust_domain,
            allowed=allowed,
            svid=lambda: node,
        )
        options = api.options(grpc.Options(drain=0.0))
        path, context = folder / "broker.sock", api.context(refusals.append)
        async with (
            grpc.listen_unix(api.methods(), path, ssl=context, options=options),
            grpc.listen_tls(api.methods(), host="127.0.0.1", port=0, ssl=context, options=options) as address,
        ):
            yield Broker(agent, path, address, refusals)


@asynccontextmanager
async def channel_at(where: Path | tuple[str, int], caller: End) -> AsyncIterator[Channel]:
    """A connection of `caller` to a socket or an address."""
    host, port = where if isinstance(where, tuple) else (None, None)
    async with Channel(
        host,
        port,
        path=str(where) if isinstance(where, Path) else None,
        ssl=caller.client(alpn=["h2"]),
        config=Configuration(ssl_target_name_override="node-agent"),
        codec=ProtoCodec(),
        status_details_codec=_Bytes(),
    ) as one:
        yield one


@asynccontextmanager
async def call_at(
    where: Path | tuple[str, int], caller: End, method: Any, reference: Reference
) -> AsyncIterator[Stream[Any, Any]]:
    """A call of `caller` there."""
    async with channel_at(where, caller) as channel, opened(channel, method, request_for(method, reference)) as stream:
        yield stream


def request_for(method: Any, reference: Reference | None, **more: Any) -> Message:
    """The request of a method, with an audience where it needs one."""
    _, _, kind, _ = method
    if kind is pb.FetchJWTSVIDRequest:
        more = {"audience": ["server"], **more}
    if reference is not None:
        more["reference"] = wire.encode_reference(reference)
    found: Message = kind(**more)
    return found


@asynccontextmanager
async def opened(
    channel: Channel, method: Any, request: Message, headers: list[tuple[str, str]] | None = None
) -> AsyncIterator[Stream[Any, Any]]:
    """A call whose request was sent."""
    path, shape, kind, reply = method
    stream = channel.request(path, shape, kind, reply, metadata=HEADERS if headers is None else headers)
    await stream.__aenter__()
    try:
        await stream.send_message(request, end=True)
        yield stream
    finally:  # a test that was refused has heard so
        with suppress(StreamTerminatedError, GRPCError, ProtocolError, StreamClosedError):
            await stream.cancel()
            await stream.__aexit__(None, None, None)


async def heard(stream: Stream[Any, Any]) -> Any:
    """The next message; how it was refused is raised."""
    message = await stream.recv_message()
    if message is None:
        stream._maybe_raise()
        raise AssertionError("the call ended without a word")
    return message


def reason(error: GRPCError) -> str | None:
    """The reason in the details of a refusal, which must be of the standard's domain."""
    if error.details is None:
        return None
    found = wire.decode_error_details(error.details)
    assert found is not None
    assert found[0] == "spiffe.io"
    return found[1]


async def outcome(
    broker: Broker, method: Any, asked: Message | Reference, caller: End | None = None, headers: Any = None
) -> tuple[Status, str | None]:
    """How a call ends, and the reason in its details."""
    async with broker.call(method, asked, caller, headers) as stream:
        try:
            await heard(stream)
        except GRPCError as error:
            return error.status, reason(error)
    return Status.OK, None


async def ends(stream: Stream[Any, Any]) -> tuple[Status, str | None]:
    """How a stream ends now."""
    with pytest.raises(GRPCError) as caught:
        async with asyncio.timeout(60):
            await heard(stream)
    return caught.value.status, reason(caught.value)


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that never calls anybody."""
    one = subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=subprocess.PIPE)
    try:
        yield one
    finally:
        one.kill()
        one.communicate()


class _Bytes(StatusDetailsCodecBase):
    def encode(self, status: Any, message: str | None, details: Any) -> bytes:
        raise NotImplementedError

    def decode(self, status: Any, message: str | None, data: bytes) -> bytes:
        return data
