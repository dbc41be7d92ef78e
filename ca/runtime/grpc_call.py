"""One gRPC call as its handler sees it: who asks, the messages both ways, and what a Problem becomes.

grpclib shows the accepted socket, and the bytes before they become a message, only behind private names. They are used
in `transport_of` and `read`, nowhere else; the version is pinned and the tests look at both.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality, Status
from grpclib.server import Stream
from h2.exceptions import ProtocolError

from ca.errors import (
    Conflict,
    Denied,
    Exhausted,
    Malformed,
    NotFound,
    Problem,
    Stale,
    Unauthenticated,
    Unavailable,
)
from ca.runtime.database import Duplicate

_HEAD = struct.Struct(">BI")

STATUS: Mapping[type[Problem], Status] = {
    Malformed: Status.INVALID_ARGUMENT,
    Unauthenticated: Status.UNAUTHENTICATED,
    Denied: Status.PERMISSION_DENIED,
    NotFound: Status.NOT_FOUND,
    Duplicate: Status.ALREADY_EXISTS,
    Conflict: Status.FAILED_PRECONDITION,
    Stale: Status.ABORTED,
    Exhausted: Status.RESOURCE_EXHAUSTED,
    Unavailable: Status.UNAVAILABLE,
    Problem: Status.INTERNAL,
}


class CallerLeft(Unavailable):
    """Nobody waits for the answer any more."""

    code = "caller-left"


@dataclass(slots=True, eq=False)
class Connection:
    """One accepted connection, known before its first byte was read."""

    transport: asyncio.Transport
    identity: Any = None

    @property
    def socket(self) -> socket.socket:
        """The accepted socket (asyncio's view of it: options can be read, data can't)."""
        found: socket.socket = self.transport.get_extra_info("socket")
        return found

    @property
    def ssl_object(self) -> tls.SSLObject | None:
        """The TLS side of it, None on a Unix socket."""
        found: tls.SSLObject | None = self.transport.get_extra_info("ssl_object")
        return found

    @property
    def peer(self) -> str:
        """Where it comes from, for the log."""
        address = self.transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"


class GrpcCall:
    """One call: who asks, and the messages that go both ways."""

    def __init__(self, stream: Stream[Any, Any], method: Method, connection: Connection, limit: int) -> None:
        self._stream = stream
        self._method = method
        self._limit = limit
        self.connection = connection

    @property
    def socket(self) -> socket.socket:
        """The accepted socket."""
        return self.connection.socket

    @property
    def ssl_object(self) -> tls.SSLObject | None:
        """The TLS side of the connection."""
        return self.connection.ssl_object

    @property
    def peer(self) -> str:
        """Where the call comes from."""
        return self.connection.peer

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What came with the call beside its messages; binary values are bytes."""
        return self._stream.metadata or {}

    @property
    def remaining(self) -> float | None:
        """Seconds the caller still waits, None when it set no deadline."""
        deadline = self._stream.deadline
        return None if deadline is None else deadline.time_remaining()

    async def recv(self) -> Any:
        """The next message; None when a caller that streams has sent its last.

        Raises:
            Malformed: it is not a message of the method's type, or the one message of a unary call is missing.
            Exhausted: it is longer than a message may be.
        """
        try:
            content = await read(self._stream, self._limit)
        except AssertionError as error:  # how grpclib says that the stream ended inside a message
            raise Malformed("a message ends before its end") from error
        if content is None and self._method.cardinality is not Cardinality.STREAM_STREAM:
            raise Malformed("the call came without its message")
        if content is None:
            return None
        try:
            return self._method.request.FromString(content)
        except DecodeError as error:
            raise Malformed("a message is not of the method's type") from error

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other end does not read. Raises Unavailable when it has gone."""
        try:
            await self._stream.send_message(message)
        except ProtocolError as error:
            raise CallerLeft("the caller has left") from error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv()
        if message is None:
            raise StopAsyncIteration
        return message


Handler: TypeAlias = Callable[[GrpcCall], Awaitable[Message | None]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method by its path; a message its handler returns is sent as the last one.

    `limit` is what a message may have where that is less than the listener's: for callers nobody knows yet.
    """

    path: str
    handler: Handler
    request: type[Message]
    reply: type[Message]
    cardinality: Cardinality = Cardinality.UNARY_UNARY
    limit: int | None = None


def unary(path: str, handler: Handler, request: type[Message], reply: type[Message]) -> Method:
    """One message each way."""
    return Method(path, handler, request, reply, Cardinality.UNARY_UNARY)


def server_stream(path: str, handler: Handler, request: type[Message], reply: type[Message]) -> Method:
    """One message comes, many go."""
    return Method(path, handler, request, reply, Cardinality.UNARY_STREAM)


def bidi(
    path: str, handler: Handler, request: type[Message], reply: type[Message], *, limit: int | None = None
) -> Method:
    """Many messages each way."""
    return Method(path, handler, request, reply, Cardinality.STREAM_STREAM, limit)


def status_of(problem: Problem) -> Status:
    """The status of `problem`, by the nearest class in the table."""
    return next(STATUS[kind] for kind in type(problem).__mro__ if kind in STATUS)


def transport_of(stream: Stream[Any, Any]) -> asyncio.Transport:
    """The transport of the connection a call came by."""
    return stream.peer._transport  # noqa: SLF001


async def read(stream: Stream[Any, Any], limit: int) -> bytes | None:
    """The next message of a call as bytes, None after the last; its length is looked at before it is waited for."""
    head = await stream._stream.recv_data(_HEAD.size)  # noqa: SLF001
    if not head:
        return None
    compressed, length = _HEAD.unpack(head)
    if compressed:
        raise Malformed("a compressed message is not understood here")
    if length > limit:
        raise Exhausted(f"a message is too large: expected no more than {limit} bytes", limit=limit)
    return await stream._stream.recv_data(length)  # noqa: SLF001
