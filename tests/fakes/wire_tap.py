"""A man in the middle between a driver and a real PostgreSQL: he cuts the wire at a word, or plays the pooler."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_SAID, _HEADER = 23, 5
"""The kind of a TLS record that carries what the ends say to each other, and how long what stands before each is."""


@dataclass(slots=True)
class _Words:
    """Whether a word begins: what a client says after the handshake of TLS 1.3, whose last record looks like one."""

    said: int = 0
    missing: int = 0

    def begin_in(self, data: bytes) -> bool:
        """Of the next bytes of one connection."""
        at, before = self.missing, max(1, self.said)
        while at < len(data):
            self.said += data[at] == _SAID
            at += _HEADER + int.from_bytes(data[at + 3 : at + _HEADER])
        self.missing = at - len(data)
        return self.said > before


@dataclass(slots=True, eq=False)
class WireTap:
    """`cut` names a word of the client's and whether the server still hears it; it works once."""

    host: str
    port: int
    cut: tuple[bytes, bool] | None = None
    pooling: bool = False
    down: bool = False
    always: bool = False
    """Whether `cut` works each time."""
    tls: bool = False
    """Whether the words are in TLS: those of its handshakes are none."""
    connections: int = 0
    address: tuple[str, int] = ("", 0)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.down:
            writer.close()
            return
        self.connections += 1
        theirs, ours = await asyncio.open_connection(self.host, self.port)
        ends = {writer, ours}
        self._open |= ends
        cut = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, ours, cut, ends))
                group.create_task(self._answer(theirs, writer, cut, ends))
        finally:
            self._open -= ends

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        ours: asyncio.StreamWriter,
        cut: asyncio.Event,
        ends: set[asyncio.StreamWriter],
    ) -> None:
        words = _Words()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                said = words.begin_in(data) if self.tls else True
                if self.cut is not None and said and self.cut[0] in data:
                    heard = self.cut[1]
                    self.cut = self.cut if self.always else None
                    if not heard:
                        break
                    cut.set()
                ours.write(data)
        if not cut.is_set():
            _close(ends)

    async def _answer(
        self,
        theirs: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cut: asyncio.Event,
        ends: set[asyncio.StreamWriter],
    ) -> None:
        with suppress(ConnectionError):
            while data := await theirs.read(65536):
                if cut.is_set():  # it was carried out, and nobody hears of it
                    break
                writer.write(_another_number(data) if self.pooling else data)
        _close(ends)

    def cut_all(self) -> None:
        """Break every connection now."""
        _close(set(self._open))


def _close(ends: set[asyncio.StreamWriter]) -> None:
    for end in ends:
        end.close()


def _another_number(data: bytes) -> bytes:
    """BackendKeyData as a pooler makes it up."""
    at = data.find(b"K\x00\x00\x00\x0c")
    return data if at < 0 else data[: at + 5] + struct.pack("!I", 7) + data[at + 9 :]


@asynccontextmanager
async def tapped(host: str, port: int, *, tls: bool = False) -> AsyncIterator[WireTap]:
    """A tap that listens on a port of its own."""
    tap = WireTap(host, port, tls=tls)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.address = server.sockets[0].getsockname()
    try:
        yield tap
    finally:
        server.close()
        tap.cut_all()
