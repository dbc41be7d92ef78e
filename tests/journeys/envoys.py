"""A service behind an Envoy, and somebody who knocks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web

from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial
from fakes.tls_ends import CLOCK, End
from servers.envoy import Envoy

TAKEN_IN = "listener.127.0.0.1_0.server_ssl_socket_factory.ssl_context_update_by_sds"
"""How often the documented listener took new secrets in use."""
TAKEN_OUT = "cluster.stock.client_ssl_socket_factory.ssl_context_update_by_sds"
"""The same of the cluster."""


@asynccontextmanager
async def service() -> AsyncIterator[int]:
    """Says who Envoy says is calling."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("x-forwarded-client-cert", ""))

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@dataclass
class Traffic:
    """What a steady stream of requests through an Envoy got: status and body of each."""

    answers: list[tuple[int, str]] = field(default_factory=list)

    async def more(self, count: int) -> None:
        """Wait for so many answers more."""
        goal = len(self.answers) + count
        async with asyncio.timeout(60):
            while len(self.answers) < goal:
                await CLOCK.sleep(0.01)


@asynccontextmanager
async def traffic(client: Envoy, *, at_once: int = 4) -> AsyncIterator[Traffic]:
    """Ask the outbound listener of `client` again and again while the block runs, each time on a new TLS connection."""
    found, done = Traffic(), asyncio.Event()
    url = f"http://127.0.0.1:{await client.port('outbound')}/"

    async def ask(session: aiohttp.ClientSession) -> None:
        while not done.is_set():
            async with session.get(url) as answer:
                found.answers.append((answer.status, await answer.text()))

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(ask(session))
        try:
            yield found
        finally:
            done.set()


async def knock(running: Envoy, bundles: BundleSet, svid: X509Svid | None) -> str | None:
    """What the service says to who shows `svid` on a new connection; None when Envoy does not let it in."""
    material = TlsMaterial(chain_pem=b"", key_pem=b"", anchors_der=tuple(bundles.anchors_der()))
    if svid is not None:
        shown = TlsMaterial.of(svid, bundles)
        material = replace(material, chain_pem=shown.chain_pem, key_pem=shown.key_pem)
    context = End(material, bundles).client(alpn=["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", await running.port("inbound"), ssl=context)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(60):
            answer = (await reader.read()).decode()
    except OSError:
        return None
    finally:
        writer.close()
    return answer.partition("\r\n\r\n")[2] if answer.startswith("HTTP/1.1 200") else None
