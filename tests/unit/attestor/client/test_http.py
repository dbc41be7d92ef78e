"""Pooled connections: never to a server that is not good any more, and no request lost to a rotation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from attestor.client.guard import guard, peer
from attestor.client.http import client_session, server_of
from ca.runtime.clock import SystemClock
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.match import IdPattern
from ca.spiffe.revocation_list import RevocationLists
from fakes.material import Material
from fakes.pki import TestAuthority
from fakes.revocations import make_list
from fakes.tls_ends import PATIENCE

CLOCK = SystemClock()
AUTHORITY = TestAuthority(now=CLOCK.now())
SERVER = IdPattern.parse("spiffe://example.org/server")


def source(path: str, authority: TestAuthority = AUTHORITY) -> Material:
    """A process with one identity."""
    return Material(authority.leaf(path), BundleSet.of(authority.bundle()), CLOCK)


@dataclass
class Served:
    """Where, and over which connections and with which of the client's certificates it was asked."""

    url: str = ""
    transports: list[object] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def serving(server: Material) -> AsyncIterator[Served]:
    """A guarded server that says which number its peer's certificate has."""
    served = Served()

    async def number(request: web.Request) -> web.Response:
        served.transports.append(request.transport)
        served.serials.append(peer(request).serial)
        return web.Response(text=f"{len(await request.read())}")

    async def slow(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"begun\n")
        await served.go_on.wait()
        await stream.write(b"ended\n")
        return stream

    app = web.Application()
    context = guard(app, server)
    app.add_routes([web.get("/", number), web.post("/", number), web.get("/slow", slow)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_pooled_connection_to_a_server_that_was_taken_back_is_not_used_again(method: str) -> None:
    """Its successor is asked instead, and no request is lost, whatever its method."""
    server, client = source("/server"), source("/client")
    async with serving(server) as served, client_session(client, SERVER) as session:
        for _ in range(2):
            async with session.request(method, served.url, data=b"word") as answer:
                assert answer.status == 200
                assert server_of(answer) is None or server_of(answer).id.path == "/server"  # type: ignore[union-attr]
        serial = server.svid.chain[0].serial_number
        server.current = AUTHORITY.leaf("/server")
        client.revocations = RevocationLists.of([make_list(AUTHORITY, [serial], now=CLOCK.now())])
        async with session.request(method, served.url, data=b"word") as answer:
            assert (answer.status, await answer.text()) == (200, "4")
        assert len(served.transports) == 3
        assert len(set(map(id, served.transports))) == 2
        client.revocations = RevocationLists.of(
            [make_list(AUTHORITY, [serial, server.svid.chain[0].serial_number], now=CLOCK.now())]
        )
        with pytest.raises(aiohttp.ClientError, match="revoked"):
            await session.request(method, served.url, data=b"word")
        assert len(served.transports) == 3


async def test_a_reader_of_a_stream_can_ask_who_sends_it() -> None:
    """As long as it goes on."""
    async with (
        serving(source("/server")) as served,
        client_session(source("/client"), SERVER) as session,
        session.get(f"{served.url}/slow") as answer,
    ):
        found = server_of(answer)
        assert found is not None
        assert found.id.path == "/server"
        served.go_on.set()
        await answer.read()
        assert server_of(answer) is None


async def test_no_request_is_lost_to_a_rotation() -> None:
    """Both ends get new certificates and new authorities, over and over, under a steady stream of requests.

    A request that is under way all the while ends as if nothing had happened.
    """
    server, client = source("/server"), source("/client")
    steady = Steady()
    async with (
        serving(server) as served,
        client_session(client, SERVER) as session,
        session.get(f"{served.url}/slow") as slow,
        asyncio.timeout(PATIENCE),
        asyncio.TaskGroup() as group,
    ):
        assert await slow.content.readline() == b"begun\n"
        workers = [group.create_task(steady.work(session, served.url)) for _ in range(4)]
        kept, shown = [AUTHORITY], set[int]()
        for _ in range(12):
            fresh = TestAuthority(now=CLOCK.now())
            kept = [kept[0], *kept[-1:], fresh] if len(kept) > 1 else [AUTHORITY, fresh]
            server.bundles = client.bundles = BundleSet.of(together(kept))
            server.current, client.current = fresh.leaf("/server"), fresh.leaf("/client")
            shown.add(client.current.chain[0].serial_number)
            await steady.more(20)
        for one in workers:
            one.cancel()
        served.go_on.set()
        assert await slow.content.readline() == b"ended\n"
    assert shown <= set(served.serials)
    assert steady.answered >= 240


def together(authorities: list[TestAuthority]) -> Bundle:
    """One bundle with all of them, as an issuer shows it around a rotation."""
    roots = [root for each in authorities for root in each.bundle().x509_authorities]
    return Bundle(trust_domain=AUTHORITY.bundle().trust_domain, x509_authorities=tuple(roots))


class Steady:
    """Requests without a pause; one that fails ends the test."""

    def __init__(self) -> None:
        self.answered = 0
        self._more = asyncio.Condition()

    async def work(self, session: aiohttp.ClientSession, url: str) -> None:
        """GET and POST in turns."""
        while True:
            method = "GET" if self.answered % 2 else "POST"
            async with session.request(method, url, data=b"x" * 2000) as answer:
                assert (answer.status, await answer.text()) == (200, "2000")
            async with self._more:
                self.answered += 1
                self._more.notify_all()

    async def more(self, count: int) -> None:
        """Until so many more were answered."""
        until = self.answered + count
        async with self._more:
            await self._more.wait_for(lambda: self.answered >= until)
