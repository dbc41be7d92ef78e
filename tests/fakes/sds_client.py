"""What an Envoy says and hears on the wire of its secret discovery, one message at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from attestor._proto import secrets_pb2 as pb
from attestor.wire import sds as wire
from attestor.wire.sds import Response, SecretRequest


@dataclass
class SdsStream:
    """One stream, and the response it heard last."""

    stream: Stream[Any, Any]
    last: Response | None = None

    async def ask(self, *names: str, nonce: str | None = None, **more: Any) -> None:
        """Name secrets; by that the last response is acknowledged, as Envoy does."""
        said = nonce if nonce is not None else (self.last.nonce if self.last else "")
        version = self.last.version if self.last else ""
        request = SecretRequest(names=names, nonce=said, version=version, **more)
        await self.stream.send_message(wire.encode_request(request))

    async def hear(self) -> Mapping[str, pb.Secret]:
        """The next response; a refusal is raised."""
        try:
            message = await self.stream.recv_message()
        except StreamTerminatedError:  # it ended while we could still speak: the reason came before that
            message = None
        if message is None:
            self.stream._maybe_raise()
            raise AssertionError("the stream ended without a word")
        self.last = wire.decode_response(message)
        return {one.name: one for one in self.last.secrets}


@asynccontextmanager
async def sds_stream(path: Path) -> AsyncIterator[SdsStream]:
    """A stream of a connection of its own."""
    async with Channel(path=str(path)) as channel:
        shape = Cardinality.STREAM_STREAM
        stream = channel.request(wire.STREAM_SECRETS, shape, pb.DiscoveryRequest, pb.DiscoveryResponse)
        await stream.__aenter__()
        await stream.send_request()
        try:
            yield SdsStream(stream)
        finally:  # a test that was refused has heard so
            with suppress(StreamTerminatedError, GRPCError, ProtocolError):
                await stream.cancel()
                await stream.__aexit__(None, None, None)


async def fetch(path: Path, *names: str) -> Mapping[str, pb.Secret]:
    """The unary call."""
    async with Channel(path=str(path)) as channel:
        shape = Cardinality.UNARY_UNARY
        call = channel.request(wire.FETCH_SECRETS, shape, pb.DiscoveryRequest, pb.DiscoveryResponse)
        async with call as stream:
            await stream.send_message(wire.encode_request(SecretRequest(names=names)), end=True)
            message = await stream.recv_message()
    assert message is not None
    return {one.name: one for one in wire.decode_response(message).secrets}
