"""Who is believed on a connection that stays open: each request, each event, and what merely goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import ClientConnectionResetError, web

from attestor.client.guard import PeerStream, guard, peer, still
from attestor.client.http import client_session
from ca.errors import Problem
from ca.runtime.clock import SystemClock
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId
from ca.spiffe.match import IdPattern
from ca.spiffe.revocation_list import RevocationLists
from fakes.clock import ManualClock
from fakes.material import Material
from fakes.pki import TestAuthority
from fakes.revocations import make_list
from fakes.tls_ends import PATIENCE

NOW = SystemClock().now()
AUTHORITY = TestAuthority(now=NOW)
SERVER = IdPattern.parse("spiffe://example.org/server")
AGENT = "spiffe://example.org/agent"


@dataclass
class Place:
    """A guarded server, one client of it, and what a test moves."""

    url: str
    server: Material
    client: Material
    wanted: set[str] = field(default_factory=lambda: {AGENT})
    refused: list[Problem] = field(default_factory=list)
    next_event: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Queue[BaseException] = field(default_factory=asyncio.Queue)

    def wants(self, spiffe_id: SpiffeId) -> bool:
        """By a set that may change."""
        return str(spiffe_id) in self.wanted

    def expire(self) -> None:
        """By the server's clock."""
        self.server.clock = ManualClock(self.client.svid.not_after.replace(year=self.client.svid.not_after.year + 1))

    def revoke(self) -> None:
        """By a list of its own issuer."""
        serial = self.client.svid.chain[0].serial_number
        self.server.revocations = RevocationLists.of([make_list(AUTHORITY, [serial], now=NOW)])

    def forget(self) -> None:
        """Its authority has left the bundle."""
        self.server.bundles = BundleSet.of(TestAuthority(now=NOW).bundle())

    def unwanted(self) -> None:
        """The application thinks otherwise by now."""
        self.wanted.clear()


WAYS: dict[str, tuple[Callable[[Place], None], int, str]] = {
    "expired": (Place.expire, 401, "untrusted"),
    "revoked": (Place.revoke, 401, "revoked"),
    "authority gone": (Place.forget, 401, "untrusted"),
    "unwanted": (Place.unwanted, 403, "peer-unwanted"),
}


@asynccontextmanager
async def placed() -> AsyncIterator[Place]:
    """The server runs."""
    bundles = BundleSet.of(AUTHORITY.bundle())
    place = Place(
        "",
        Material(AUTHORITY.leaf("/server"), bundles, ManualClock(NOW)),
        Material(AUTHORITY.leaf("/agent"), bundles, ManualClock(NOW)),
    )

    async def who(request: web.Request) -> web.Response:
        return web.Response(text=str(peer(request).id))

    async def events(request: web.Request) -> web.StreamResponse:
        stream = PeerStream()
        await stream.prepare(request)
        try:
            while True:
                await stream.write(b"event\n")
                await place.next_event.wait()
                place.next_event.clear()
        except ClientConnectionResetError as error:
            place.ended.put_nowait(error)
            raise

    async def socket(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(str(message.data))
        return socket

    app = web.Application()
    context = guard(app, place.server, place.wants, refused=place.refused.append)
    app.add_routes([web.get("/", who), web.get("/events", events), web.get("/socket", socket)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    place.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield place
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("way", WAYS)
async def test_the_next_request_of_an_open_connection_is_refused(way: str) -> None:
    """With a reason; the connection is closed, and a new one is not let in."""
    turn, status, code = WAYS[way]
    async with placed() as place, client_session(place.client, SERVER) as session:
        for _ in range(2):
            async with session.get(place.url) as answer:
                assert (answer.status, await answer.text()) == (200, AGENT)
        turn(place)
        async with session.get(place.url) as answer:
            told = await answer.json(content_type="application/problem+json")
            assert (answer.status, told["code"], answer.headers["Connection"]) == (status, code, "close")
        assert [one.code for one in place.refused] == [code]
        with pytest.raises(aiohttp.ClientError):
            await session.get(place.url)
        assert len(place.refused) >= 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_of_events_ends_before_its_next_event(way: str) -> None:
    """Not a byte of it reaches whoever may not have it; the handler hears what it hears when a client has gone."""
    async with placed() as place, client_session(place.client, SERVER) as session, asyncio.timeout(PATIENCE):
        async with session.get(f"{place.url}/events") as answer:
            assert await answer.content.readline() == b"event\n"
            place.next_event.set()
            assert await answer.content.readline() == b"event\n"
            WAYS[way][0](place)
            place.next_event.set()
            with pytest.raises(aiohttp.ClientError):
                assert await answer.content.readline() == b""
        error = await place.ended.get()
        assert isinstance(error.__cause__, Problem)
        assert [one.code for one in place.refused] == [WAYS[way][2]]


@pytest.mark.parametrize("way", WAYS)
async def test_what_merely_goes_on_is_cut(way: str) -> None:
    """A WebSocket on which nobody says anything."""
    async with placed() as place, client_session(place.client, SERVER) as session, asyncio.timeout(PATIENCE):
        async with session.ws_connect(f"{place.url}/socket") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            WAYS[way][0](place)
            assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert [one.code for one in place.refused] == [WAYS[way][2]]


async def test_who_is_still_good_goes_on_while_another_is_cut() -> None:
    """The sweep looks at each by itself, also when judging one of them fails."""
    async with placed() as place, asyncio.timeout(PATIENCE):
        other = Material(AUTHORITY.leaf("/other"), place.server.bundles, place.server.clock)
        place.wanted.add("spiffe://example.org/other")
        async with (
            client_session(place.client, SERVER) as one,
            client_session(other, SERVER) as two,
            one.ws_connect(f"{place.url}/socket") as cut,
            two.ws_connect(f"{place.url}/socket") as kept,
        ):
            place.wanted = _Broken({"spiffe://example.org/other"})
            assert (await cut.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
            await kept.send_str("hello")
            assert await kept.receive_str() == "hello"


class _Broken(set[str]):
    """Can't say whether it holds what it does not hold."""

    def __contains__(self, what: object) -> bool:
        if not super().__contains__(what):
            raise ZeroDivisionError
        return True


async def test_a_request_without_the_handshake_is_nobodys() -> None:
    """The same application behind a listener that was set up without TLS, or with a context of somebody else."""
    app = web.Application()
    guard(app, Material(AUTHORITY.leaf("/server"), BundleSet.of(AUTHORITY.bundle()), SystemClock()))

    async def who(request: web.Request) -> web.Response:
        return web.Response(text=str(still(request).id))

    app.add_routes([web.get("/", who)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 401
            assert (await answer.json(content_type=None))["code"] == "unauthenticated"
    finally:
        await runner.cleanup()
