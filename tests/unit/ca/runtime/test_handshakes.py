"""TLS on a listener: a storm of handshakes leaves the loop to others, silence takes no turn, idle ones are small."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from ca.runtime.crowd import Crowd, listening_at
from ca.runtime.handshakes import READ, Tls, Turns
from fakes.stores import Elsewhere
from fakes.tls_ends import End, authority, end

STORM = 48


class Greeter(asyncio.Protocol):
    """Says one word to whoever shook hands."""

    made: list[Any]

    def __init__(self, made: list[Any]) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(transport)
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"welcome")


class Place:
    """A listener with a server's end, and clients of the same domain."""

    def __init__(self) -> None:
        own = authority()
        self.server, self.client = end(own, "/server"), end(own, "/client")
        self.made: list[Any] = []
        self.where = ("", 0)

    @asynccontextmanager
    async def open(self, patience: float = 60.0) -> AsyncIterator[Place]:
        """Listen."""
        context = self.server.server()
        async with listening_at(
            "127.0.0.1", 0, Crowd(share=1.0), lambda: Greeter(self.made), ssl=context, handshake=patience
        ) as where:
            self.where = where
            yield self

    async def shake(self, client: End | None = None) -> bytes:
        """One client: what it is told."""
        context: ssl.SSLContext = (client or self.client).client()
        reader, writer = await asyncio.open_connection(*self.where, ssl=context)
        try:
            return await reader.read(100)
        finally:
            writer.transport.abort()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """Listening."""
    async with asyncio.timeout(60), Place().open() as found:
        yield found


async def test_others_get_a_turn_between_any_two_steps(place: Place) -> None:
    """Fifty peers at once: whoever waits for the loop never waits for more than one of them."""
    seen: list[int] = []
    done = asyncio.Event()

    async def others() -> None:
        while not done.is_set():
            seen.append(len(place.server.met))
            await Elsewhere()

    watching = asyncio.get_running_loop().create_task(others())
    answers = await asyncio.gather(*(place.shake() for _ in range(STORM)))
    done.set()
    await watching
    assert answers == [b"welcome"] * STORM
    assert len(place.server.met) == STORM
    assert max(after - before for before, after in pairwise(seen)) <= 1


async def test_what_is_half_done_goes_first() -> None:
    """Under a storm handshakes end instead of all of them being begun."""
    order: list[str] = []

    class Step:
        def __init__(self, name: str) -> None:
            self.name = name

        def step(self) -> None:
            order.append(self.name)

    turns = Turns(asyncio.get_running_loop(), rest=0.0)
    steps: Any = [Step(f"fresh-{n}") for n in range(3)], Step("further")
    for fresh in steps[0]:
        turns.ask(fresh, begun=False)
    turns.ask(steps[1], begun=True)
    assert turns.waiting == 4
    while turns.waiting:
        await Elsewhere()
    assert order == ["further", "fresh-0", "fresh-1", "fresh-2"]


async def test_who_says_nothing_holds_nobody_up(place: Place) -> None:
    """A hundred connections without a byte, and half a hello: the next peer is served."""
    silent = [await asyncio.open_connection(*place.where) for _ in range(100)]
    for _, writer in silent[:50]:
        writer.write(b"\x16\x03\x01\x02")
    assert await place.shake() == b"welcome"
    assert Turns.of(asyncio.get_running_loop()).waiting == 0
    for _, writer in silent:
        writer.transport.abort()


async def test_who_takes_too_long_is_cut() -> None:
    """As long as a handshake may take, and no longer."""
    async with asyncio.timeout(60), Place().open(patience=0.05) as place:
        reader, writer = await asyncio.open_connection(*place.where)
        writer.write(b"\x16")
        assert await reader.read(1) == b""
        writer.close()
        assert place.made == []


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 70_000])
async def test_garbage_closes_its_own_connection(place: Place, garbage: bytes) -> None:
    """And no turn is lost by it."""
    reader, writer = await asyncio.open_connection(*place.where)
    writer.write(garbage)
    with suppress(ConnectionError):
        assert b"welcome" not in await reader.read()
    writer.transport.abort()
    assert await place.shake() == b"welcome"


async def test_a_refused_peer_does_not_stop_the_turns(place: Place) -> None:
    """A chain of another authority is refused by the hook; the next is served."""
    stranger = end(authority(), "/client")
    (answer,) = await asyncio.gather(place.shake(stranger), return_exceptions=True)
    assert answer != b"welcome"
    assert await place.shake() == b"welcome"
    assert len(place.made) == 1


async def test_idle_connections_share_what_they_are_read_into(place: Place) -> None:
    """One record for all of them; what each says goes to its own."""
    pairs = [await asyncio.open_connection(*place.where, ssl=place.client.client()) for _ in range(3)]
    for reader, _ in pairs:
        assert await reader.read(100) == b"welcome"
    protocols = [transport._ssl_protocol for transport in place.made]
    assert all(isinstance(one, Tls) for one in protocols)
    assert len({id(one.get_buffer(-1).obj) for one in protocols}) == 1
    assert len(protocols[0].get_buffer(-1)) == READ == 16 * 1024
    heard = [bytearray() for _ in pairs]
    for transport, found in zip(place.made, heard, strict=True):
        transport.get_protocol().data_received = found.extend
    said = [bytes([number]) * 200_000 for number in range(3)]
    for (_, writer), words in zip(pairs, said, strict=True):
        writer.write(words)
    while [len(found) for found in heard] != [200_000] * 3:
        await Elsewhere()
    assert [bytes(found) for found in heard] == said
    for _, writer in pairs:
        writer.transport.abort()
