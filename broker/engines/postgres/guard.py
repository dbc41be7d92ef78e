"""A login that gives nobody a password: whoever asks for it in clear, or as MD5, is hung up on.

The driver answers whatever it is asked. On a connection that is not verified a man in the middle need only ask for the
password in clear (`AuthenticationCleartextPassword`) to have it; an MD5 of it, over a salt of his choice, is as good
for a password that can be guessed. Only SCRAM (or nothing: a certificate, `trust`) may be asked for. What the server
sends before it has let us in is looked at message by message, and only what passes reaches the driver; after that the
driver has the wire for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Never, cast

import asyncpg
from asyncpg.protocol import Protocol as Driver

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    Connection = asyncpg.Connection  # generic in the stubs only

_AUTHENTICATION = ord("R")
_LET_IN = 0
_SCRAM = frozenset({10, 11, 12})
_LONGEST = 1 << 16
"""Bytes of a message before we are let in; an error with all its fields is far shorter."""


class AskedForPassword(ConnectionError):
    """The other end wanted the password itself, or something it can be guessed from."""


class _Guard(asyncio.Protocol):
    """Stands between the transport and the driver until the server has let us in."""

    def __init__(self, driver: Any, loop: _GuardedLoop) -> None:
        self._driver, self._loop = driver, loop
        self._seen = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._driver.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while self._transport is not None and len(self._seen) >= 5:
            end = 1 + int.from_bytes(self._seen[1:5], "big")
            if not 5 <= end <= _LONGEST:
                self._hang_up(f"sent a message of {end} bytes before it let us in")
                return
            if len(self._seen) < end:
                return
            message, self._seen = self._seen[:end], self._seen[end:]
            self._look(message)

    def _look(self, message: bytes) -> None:
        asked = int.from_bytes(message[5:9], "big") if message[0] == _AUTHENTICATION else None
        if asked is not None and asked != _LET_IN and asked not in _SCRAM:
            self._hang_up("asked for our password in a way that would give it away, and got none")
            return
        self._driver.data_received(message)
        if asked == _LET_IN:
            transport, rest, self._transport = self._transport, self._seen, None
            transport.set_protocol(self._driver)
            if rest:
                self._driver.data_received(rest)

    def _hang_up(self, why: str) -> None:
        transport, self._transport = self._transport, None
        self._loop.refused = AskedForPassword(f"it {why}")
        transport.abort()

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._driver.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class _GuardedLoop:
    """The running loop, with every connection of the driver's guarded.

    It has no `start_tls`, so that the driver asks for a TLS connection in one piece, over the socket it negotiated on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = loop
        self.refused: AskedForPassword | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "start_tls":
            raise AttributeError(name)
        return getattr(self._running, name)

    async def create_connection(self, factory: Callable[[], Any], *where: Any, **how: Any) -> tuple[Any, Any]:
        made: list[Any] = []

        def guarded() -> Any:
            made.append(factory())
            return _Guard(made[-1], self) if isinstance(made[-1], Driver) else made[-1]

        transport, _ = await self._running.create_connection(guarded, *where, **how)
        return transport, made[-1]

    async def create_unix_connection(self, *_where: Any, **_how: Any) -> Never:
        raise OSError("a target is reached over TCP")


async def log_in(**said: Any) -> Connection:
    """`asyncpg.connect`, guarded. Raises AskedForPassword, and whatever the driver raises."""
    loop = _GuardedLoop(asyncio.get_running_loop())
    try:
        connection: Connection = await asyncpg.connect(**said, loop=cast("Any", loop))
    except Exception:
        if loop.refused is not None:
            raise loop.refused from None
        raise
    return connection
