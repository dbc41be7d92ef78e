"""The tap in the way to a server behind TLS: a word is lost, or heard and its answer lost; a handshake is no word."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.web_pki import WebAuthority
from fakes.wire_tap import WireTap, tapped


@dataclass
class Echo:
    """A server that answers what it heard, behind a tap; `context` is a client's."""

    tap: WireTap
    context: ssl.SSLContext
    heard: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def ask(self, word: bytes) -> bytes:
        """The answer on a connection of its own; empty when there is none."""
        reader, writer = await asyncio.open_connection(*self.tap.address, ssl=self.context)
        writer.write(word)
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read(100)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        return answer


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    """One that listens."""
    authority = WebAuthority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    heard = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            if word := await reader.read(100):
                heard.put_nowait(word)
                writer.write(word)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server())
    async with server, tapped("127.0.0.1", server.sockets[0].getsockname()[1], tls=True) as tap:
        yield Echo(tap, ssl.create_default_context(cafile=tmp_path / "ca.pem"), heard)


async def test_the_first_word_is_lost_and_not_the_handshake(echo: Echo) -> None:
    """Whoever sends it hears nothing, and neither did the server; the next one is answered."""
    echo.tap.cut = (b"", False)
    assert await echo.ask(b"one") == b""
    assert await echo.ask(b"two") == b"two"
    assert await echo.heard.get() == b"two"


async def test_an_answer_is_lost_to_what_was_heard(echo: Echo) -> None:
    """The server did what it was told."""
    echo.tap.cut = (b"", True)
    assert await echo.ask(b"one") == b""
    assert await echo.heard.get() == b"one"
    assert await echo.ask(b"two") == b"two"
