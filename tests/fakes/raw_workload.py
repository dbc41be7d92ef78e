"""The Workload API message by message, with whatever headers a test wants: what no client of ours would send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from grpclib.client import Channel, Stream
from grpclib.const import Cardinality

from attestor._proto import workload_pb2 as pb
from attestor.wire import wit
from attestor.wire import workload as wire
from fakes.workload import Agent

REQUESTS: dict[str, tuple[Any, Any]] = {
    wire.FETCH_X509_SVID: (pb.X509SVIDRequest, pb.X509SVIDResponse),
    wire.FETCH_X509_BUNDLES: (pb.X509BundlesRequest, pb.X509BundlesResponse),
    wire.FETCH_JWT_BUNDLES: (pb.JWTBundlesRequest, pb.JWTBundlesResponse),
    wit.FETCH_WIT_SVID: (pb.WITSVIDRequest, pb.WITSVIDResponse),
    wit.FETCH_WIT_BUNDLES: (pb.WITBundlesRequest, pb.WITBundlesResponse),
}
"""The streams that ask for nothing in particular."""


class Raw:
    """An open stream."""

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self._stream = stream

    async def next(self) -> Any:
        """The next message; there must be one."""
        message = await self._stream.recv_message()
        assert message is not None
        return message


@asynccontextmanager
async def opened(
    agent: Agent, path: str = wire.FETCH_X509_SVID, more: Sequence[tuple[str, str]] = (), **asked: str
) -> AsyncIterator[Raw]:
    """A stream of the method at `path`, on a connection of its own."""
    request, reply = REQUESTS[path]
    async with Channel(path=str(agent.path)) as channel:
        headers = [wire.SECURITY_HEADER, *more]
        async with channel.request(path, Cardinality.UNARY_STREAM, request, reply, metadata=headers) as stream:
            await stream.send_message(request(**asked), end=True)
            yield Raw(stream)
            await stream.cancel()
