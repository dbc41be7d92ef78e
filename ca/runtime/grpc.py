"""gRPC for a process, on grpclib: the caller's socket, bounded messages, a Problem as a status.

    METHODS = (
        grpc.unary("/sojourn.node.v1.Node/Resolve", resolve, pb.ResolveRequest, pb.ResolveResponse),
        grpc.bidi("/sojourn.node.v1.Node/Follow", follow, pb.FollowRequest, pb.FollowResponse),
    )

    async def resolve(call: GrpcCall) -> pb.ResolveResponse:
        request = await call.recv()
        ...

    async with grpc.listen_tls(METHODS, host="127.0.0.1", port=0, ssl=context) as (host, port): ...

A connection is judged once, when it is accepted: `accept` may attach an identity to it or refuse it with a Problem, and
`release` is told when it has gone. The methods find it as `call.connection.identity`. Leaving a listener stops
accepting, lets unary calls finish, and ends streams with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Row
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Handler as Calls
from grpclib.server import Server, Stream
from h2.events import UnknownFrameReceived

from ca.errors import Problem
from ca.runtime import log
from ca.runtime.crowd import Crowd, listening_at, listening_on
from ca.runtime.grpc_call import (
    STATUS,
    CallerLeft,
    Connection,
    GrpcCall,
    Handler,
    Method,
    bidi,
    server_stream,
    status_of,
    transport_of,
    unary,
)
from ca.runtime.metrics import Metrics
from ca.runtime.unix_socket import listening

__all__ = [
    "STATUS",
    "CallerLeft",
    "Connection",
    "GrpcCall",
    "Handler",
    "Method",
    "Options",
    "bidi",
    "connect_tls",
    "connect_unix",
    "listen_tls",
    "listen_unix",
    "server_stream",
    "status_of",
    "unary",
]

# A stream that its caller has left is cancelled when the listener ends; grpclib then calls the answer it can't send an
# error. It is none, and it would be the last line of every orderly stop.
logging.getLogger("grpclib.server").addFilter(lambda record: record.msg != "Failed to handle cancellation")

LIMIT = 4 * 1024 * 1024
"""Bytes a message may have."""

DRAIN = 10.0
"""Seconds unary calls get to finish when the listener ends."""

FAREWELL = 1.0
"""Seconds connections get to take their last bytes."""

HANDSHAKE = 10.0
_WINDOW = 1024 * 1024
_log = log.get(__name__)

Accept: TypeAlias = Callable[[Connection], object]
Release: TypeAlias = Callable[[Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a listener treats connections and messages."""

    accept: Accept | None = None
    release: Release | None = None
    limit: int = LIMIT
    drain: float = DRAIN
    metrics: Metrics | None = None
    crowd: Crowd | None = None
    """How many connections are held; None: as many as usual, one caller at most half of them."""
    details: Callable[[Problem], bytes | None] | None = None
    """What a Problem says in `grpc-status-details-bin`: a google.rpc.Status, as bytes."""


@asynccontextmanager
async def listen_unix(
    methods: Sequence[Method],
    path: Path,
    *,
    mode: int = 0o600,
    ssl: tls.SSLContext | None = None,
    options: Options | None = None,
) -> AsyncIterator[Path]:
    """Answer `methods` on a socket at `path`, with `ssl` over TLS. Raises AlreadyRunning when another listens there."""
    listener = _Listener(methods, options or Options())
    crowd = listener.options.crowd or Crowd()
    with listening(path, mode=mode) as bound:
        async with listener.serving(), listening_on(bound, crowd, listener.protocol, ssl=ssl, handshake=HANDSHAKE):
            yield path


@asynccontextmanager
async def listen_tls(
    methods: Sequence[Method], *, host: str, port: int, ssl: tls.SSLContext, options: Options | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Answer `methods` at `host`:`port` (0: a free one); yields where it listens. `ssl` must offer ALPN `h2`."""
    listener = _Listener(methods, options or Options())
    crowd = listener.options.crowd or Crowd()
    async with (
        listener.serving(),
        listening_at(host, port, crowd, listener.protocol, ssl=ssl, handshake=HANDSHAKE) as bound,
    ):
        yield bound


def connect_unix(path: Path) -> Channel:
    """A channel to the socket at `path`, connected with its first call; close it, or use it as a context manager."""
    return Channel(path=str(path))


def connect_tls(host: str, port: int, ssl: tls.SSLContext) -> Channel:
    """The same over TLS."""
    return Channel(host=host, port=port, ssl=ssl)


class _Listener:
    """All connections of one listening socket."""

    def __init__(self, methods: Sequence[Method], options: Options) -> None:
        self.options = options
        self.connections: dict[asyncio.Transport, _Protocol] = {}
        self._stopping = False
        self._unary = 0
        self._waiting: list[asyncio.Event] = []
        self._rows = _Rows({method.path: self._row(method) for method in methods})
        config = Configuration(http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW)
        self._server = Server([self], config=config, codec=ProtoCodec(), status_details_codec=_AsTheyAre())

    def __mapping__(self) -> dict[str, Row]:
        """How grpclib asks which methods there are."""
        return self._rows

    def protocol(self) -> _Protocol:
        """What asyncio wants for each connection."""
        plain = self._server._protocol_factory()  # noqa: SLF001 - grpclib's own, and our eyes before it
        assert isinstance(plain.handler, Calls)
        plain.handler.mapping = self._rows
        return _Protocol(plain, self)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block runs, and what accepts within it; then stop in order."""
        try:
            yield
        finally:
            self._stopping = True
            if not await self._within(self.options.drain, lambda: self._unary == 0):
                _log.warning("calls were cut off by the stop", calls=self._unary)
            for protocol in list(self.connections.values()):
                await protocol.end_calls()
            await self._within(FAREWELL, lambda: not self.connections)
            for transport in list(self.connections):
                transport.abort()

    def changed(self) -> None:
        """A call or a connection has ended."""
        for waiting in self._waiting:
            waiting.set()

    async def _within(self, seconds: float, done: Callable[[], bool]) -> bool:
        changed = asyncio.Event()
        self._waiting.append(changed)
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return False
        return True

    def _row(self, method: Method) -> Row:
        async def run(stream: Stream[Any, Any]) -> None:
            connection = self.connections[transport_of(stream)].accepted
            limit = self.options.limit if method.limit is None else min(method.limit, self.options.limit)
            call = GrpcCall(stream, method, connection, limit)
            with self._counted(method), log.request() as request_id:
                await self._answer(method, call, request_id)

        return Row(run, method.cardinality, method.request, method.reply)

    async def _answer(self, method: Method, call: GrpcCall, request_id: str) -> None:
        """Run the handler; what it raises becomes the status of the call."""
        try:
            last = await method.handler(call)
            if last is not None:
                await call.send(last)
        except GRPCError:
            raise
        except Problem as problem:
            _log.info("refused", method=method.path, peer=call.peer, error=problem)
            told = self.options.details(problem) if self.options.details is not None else None
            raise GRPCError(status_of(problem), str(problem), told) from None
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if not self._stopping or own is None:
                raise
            own.uncancel()  # grpclib cancels what still runs; the caller shall read why
            raise GRPCError(Status.UNAVAILABLE, "this process stops") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller learns nothing but the id
            _log.error("failed unexpectedly", method=method.path, peer=call.peer, error=error)
            raise GRPCError(Status.INTERNAL, f"the log knows more under the request {request_id}") from None

    @contextmanager
    def _counted(self, method: Method) -> Iterator[None]:
        streams, metrics = method.cardinality is not Cardinality.UNARY_UNARY, self.options.metrics
        self._unary += not streams
        if metrics is not None and streams:
            metrics.add("sojourn_grpc_streams", 1)
        status = Status.CANCELLED
        try:
            yield
            status = Status.OK
        except GRPCError as error:
            status = error.status
            raise
        finally:
            self._unary -= not streams
            self.changed()
            if metrics is not None:
                metrics.count("sojourn_grpc_calls_total", code=status.name)
                if streams:
                    metrics.add("sojourn_grpc_streams", -1)


class _AsTheyAre(StatusDetailsCodecBase):
    """Details come as bytes from whoever knows their messages."""

    def encode(self, status: Status, message: str | None, details: bytes) -> bytes:
        """For a server."""
        del status, message
        return details

    def decode(self, status: Status, message: str | None, data: bytes) -> bytes:
        """For a client."""
        del status, message
        return data


class _Rows(dict[str, Row]):
    """The methods there are, and an answer for every other.

    grpclib refuses an unknown method without a content type, which clients (its own, too) then complain about instead
    of hearing UNIMPLEMENTED.
    """

    def get(self, key: str, default: object = None) -> Any:
        """The method at the path `key`."""
        del default
        return super().get(key) or Row(_unimplemented, Cardinality.UNARY_UNARY, None, None)


async def _unimplemented(_: Stream[Any, Any]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "there is no such method here")


class _Protocol(H2Protocol):
    """One connection: judged before its first byte, told off when it sends what nobody understands."""

    accepted: Connection

    def __init__(self, plain: H2Protocol, listener: _Listener) -> None:
        super().__init__(plain.handler, plain.config, plain.h2_config)
        self._listener = listener
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask who it is."""
        assert isinstance(transport, asyncio.Transport)
        self.accepted = Connection(transport)
        try:
            accept = self._listener.options.accept
            self.accepted.identity = accept(self.accepted) if accept is not None else None
        except Exception as error:  # noqa: BLE001 - whoever can't be judged is not let in
            _log.info("a connection was refused", peer=self.accepted.peer, error=error)
            transport.abort()
            return
        self._admitted = True
        self._listener.connections[transport] = self
        super().connection_made(transport)
        self.processor.processors[UnknownFrameReceived] = lambda _: None  # HTTP/2 says: ignore them

    def pause_writing(self) -> None:
        """Whoever does not read is not read either: each PING and SETTINGS asks for an answer we would have to keep."""
        super().pause_writing()
        self.accepted.transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self.accepted.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Feed HTTP/2; a peer that breaks grpclib loses its own connection and nothing else."""
        if not self._admitted:
            return
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001
            _log.info("a connection broke the protocol", peer=self.accepted.peer, error=error)
            self.accepted.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End its calls and let go of its identity."""
        if not self._admitted:
            self.handler.close()
            return
        super().connection_lost(exc)
        self._listener.connections.pop(self.accepted.transport, None)
        self._listener.changed()
        if self._listener.options.release is not None:
            self._listener.options.release(self.accepted.identity)

    async def end_calls(self) -> None:
        """Cancel the calls of this connection, wait until their callers were told, and close it."""
        assert isinstance(self.handler, Calls)
        self.handler.close()
        await self.handler.wait_closed()
        self.accepted.transport.close()
