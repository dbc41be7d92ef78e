"""A visitor that speaks just enough AMQP 0-9-1 to tell whether it is let in: for checks, never for work.

async with knocking(host, port, tls) as door:
    await door.authenticate(user, password)      # False: refused
    await door.enter(vhost)                      # False: refused
    await door.answers()                         # whether the connection still lives, by a question to the server
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.errors import TargetDown

_WITHIN = 8.0
"""Seconds for one answer."""

_PREAMBLE = b"AMQP\x00\x00\x09\x01"
_END = 0xCE
_LARGEST = 128 * 1024

_START, _START_OK, _TUNE, _TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
_OPEN, _OPEN_OK, _CLOSE = (10, 40), (10, 41), (10, 50)
_CHANNEL_OPEN, _CHANNEL_OPEN_OK = (20, 10), (20, 11)

_CAPABILITIES = b"\x1cauthentication_failure_closet\x01"
_PROPERTIES = b"\x0ccapabilitiesF" + struct.pack(">I", len(_CAPABILITIES)) + _CAPABILITIES
"""So that a refused password is answered by a method and not by silence."""

Method = tuple[int, int]


@dataclass(slots=True)
class Door:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _channels: int = 0
    _tuned: bytes = field(default=b"", repr=False)

    async def authenticate(self, user: str, password: str) -> bool:
        """Whether the password is right. Raises TargetDown: whoever is there does not speak AMQP."""
        self.writer.write(_PREAMBLE)
        method, _ = await self._expect(_START)
        response = f"\0{user}\0{password}".encode()
        arguments = _long(_PROPERTIES) + _short(b"PLAIN") + _long(response) + _short(b"en_US")
        method, self._tuned = await self._ask(_START_OK, arguments, _TUNE, _CLOSE)
        return method == _TUNE

    async def enter(self, vhost: str) -> bool:
        """Whether the virtual host lets the user in."""
        self._send(0, _TUNE_OK, self._tuned[:6] + b"\0\0")  # no heartbeats
        method, _ = await self._ask(_OPEN, _short(vhost.encode()) + b"\0\0", _OPEN_OK, _CLOSE)
        return method == _OPEN_OK

    async def answers(self) -> bool:
        """Whether the server still serves this connection: a further channel is opened."""
        self._channels += 1
        self._send(self._channels, _CHANNEL_OPEN, b"\0")
        try:
            method, _ = await self._expect(_CHANNEL_OPEN_OK, _CLOSE)
        except TargetDown:
            return False
        return method == _CHANNEL_OPEN_OK

    async def _ask(self, method: Method, arguments: bytes, *expected: Method) -> tuple[Method, bytes]:
        self._send(0, method, arguments)
        return await self._expect(*expected)

    def _send(self, channel: int, method: Method, arguments: bytes) -> None:
        payload = struct.pack(">HH", *method) + arguments
        self.writer.write(struct.pack(">BHI", 1, channel, len(payload)) + payload + bytes([_END]))

    async def _expect(self, *expected: Method) -> tuple[Method, bytes]:
        """The next method of those; heartbeats are passed over. Raises TargetDown."""
        try:
            async with asyncio.timeout(_WITHIN):
                await self.writer.drain()
                while True:
                    kind, payload = await self._frame()
                    if kind == 1:
                        break
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise TargetDown("the AMQP connection broke off") from error
        method = (int.from_bytes(payload[:2]), int.from_bytes(payload[2:4]))
        if method not in expected:
            raise TargetDown("the target answers what is no AMQP 0-9-1 we know")
        return method, payload[4:]

    async def _frame(self) -> tuple[int, bytes]:
        kind, _, size = struct.unpack(">BHI", await self.reader.readexactly(7))
        if kind not in {1, 8} or size > _LARGEST:
            raise TargetDown("whoever answers at the AMQP port does not speak AMQP 0-9-1")
        content = await self.reader.readexactly(size + 1)
        if content[-1] != _END:
            raise TargetDown("whoever answers at the AMQP port does not speak AMQP 0-9-1")
        return kind, content[:-1]


@asynccontextmanager
async def knocking(host: str, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[Door]:
    """Connect. Raises TargetDown."""
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except (OSError, TimeoutError) as error:
        raise TargetDown(f"the AMQP port at `{host}:{port}` can't be reached ({type(error).__name__})") from error
    try:
        yield Door(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value
