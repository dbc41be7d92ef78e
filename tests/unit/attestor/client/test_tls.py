"""TLS contexts that follow a source, on real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from attestor.client.errors import NoIdentity
from attestor.client.http import client_session
from attestor.client.tls import server_context
from ca import tls
from ca.errors import Problem
from ca.runtime.clock import SystemClock
from ca.runtime.web import Call, Route, application, listen
from ca.spiffe.bundle import BundleSet
from ca.spiffe.match import IdPattern
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid
from fakes.material import Material
from fakes.pki import Oddities, SelfSigned, TestAuthority, make_key
from fakes.revocations import make_list

CLOCK = SystemClock()
AUTHORITY = TestAuthority(now=CLOCK.now())
FOREIGN = TestAuthority("foreign.org", now=CLOCK.now())


@dataclass
class Server:
    """What runs, and who was let in and refused."""

    url: str
    source: Material
    peers: list[str] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)


@asynccontextmanager
async def serving(source: Material, authorize: IdPattern | Callable[..., bool] | None = None) -> AsyncIterator[Server]:
    """A server that says who called."""
    server = Server("", source)

    async def who(call: Call) -> dict[str, str]:
        assert call.request.transport is not None
        peer = tls.peer_of(call.request.transport.get_extra_info("ssl_object"))
        server.peers.append(str(peer.id))  # type: ignore[union-attr]
        return {"you": str(peer.id)}  # type: ignore[union-attr]

    context = server_context(source, authorize, refused=server.refused.append)
    app = application([Route("GET", "/", who, summary="Who calls")])
    async with listen(app, host="127.0.0.1", port=0, ssl=context, drain=0.1) as (host, port):
        server.url = f"https://{host}:{port}/"
        yield server


def source(path: str = "/server", authority: TestAuthority = AUTHORITY, *bundles: TestAuthority) -> Material:
    """A process with one identity, trusting `bundles` or its own domain."""
    return Material(authority.leaf(path), BundleSet.of(*(one.bundle() for one in bundles or (authority,))), CLOCK)


async def ask(client: Material, server: Server, expect: str = "spiffe://example.org/server") -> str:
    """One request on a connection of its own."""
    async with client_session(client, IdPattern.parse(expect)) as session, session.get(server.url) as answer:
        return str((await answer.json())["you"])


async def test_both_ends_know_each_other() -> None:
    """The server's handler sees the client's proven identity."""
    async with serving(source()) as server:
        assert await ask(source("/agent"), server) == "spiffe://example.org/agent"


async def test_a_foreign_domain_needs_its_own_bundle() -> None:
    """A foreign certificate is judged by the foreign bundle, or refused and counted with a reason."""
    async with serving(source()) as server:
        with pytest.raises(aiohttp.ClientError):
            await ask(source("/agent", FOREIGN, FOREIGN, AUTHORITY), server)
        assert "unable to get local issuer certificate" in str(server.refused[0])
        server.source.bundles = BundleSet.of(AUTHORITY.bundle(), FOREIGN.bundle())
        assert await ask(source("/agent", FOREIGN, FOREIGN, AUTHORITY), server) == "spiffe://foreign.org/agent"
    assert server.peers == ["spiffe://foreign.org/agent"]


async def test_a_federated_authority_can_not_name_our_members() -> None:
    """Traps 1: a chain of the foreign CA with an ID of ours is refused although both bundles are known."""
    key = make_key()
    certificate = FOREIGN.certificate(odd=Oddities(uris=["spiffe://example.org/agent"], key=key))
    forged = Material(X509Svid.of(FOREIGN.chain(certificate), key), BundleSet.of(AUTHORITY.bundle()), CLOCK)
    trusting = source("/server", AUTHORITY, AUTHORITY, FOREIGN)
    async with serving(trusting) as server:
        with pytest.raises(aiohttp.ClientError):
            await ask(forged, server)
        assert server.peers == []
        assert "leads to no authority of `example.org`" in str(server.refused[0])


@pytest.mark.parametrize("wanted", [IdPattern.parse("spiffe://example.org/a/**"), lambda spiffe_id: False])
async def test_only_wanted_clients_are_let_in(wanted: IdPattern) -> None:
    """By pattern or by function; a refusal says who came."""
    async with serving(source(), wanted) as server:
        with pytest.raises(aiohttp.ClientError):
            await ask(source("/agent"), server)
        assert "`spiffe://example.org/agent` is not who is expected" in str(server.refused[0])


async def test_another_server_is_refused_before_it_gets_a_byte() -> None:
    """The client knows whom it wants."""
    async with serving(source("/impostor")) as server:
        with pytest.raises(aiohttp.ClientError, match="is not who is expected"):
            await ask(source("/agent"), server)
        assert server.peers == []


async def test_a_client_without_certificate_is_refused() -> None:
    """Unless the server says otherwise."""
    async with serving(source()) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url, ssl=False)
        assert server.peers == []


async def test_each_new_version_of_the_material_is_a_new_connection() -> None:
    """A pooled connection would outlive its certificate; the newest SVID is shown from the next request on."""
    client = source("/first")
    expect = IdPattern.parse("spiffe://example.org/server")
    async with serving(source()) as server, client_session(client, expect) as session:
        for path in ("/first", "/first", "/second"):
            client.current = client.svid if client.svid.id.path == path else AUTHORITY.leaf(path)
            async with session.get(server.url) as answer:
                assert (await answer.json())["you"].endswith(path)
        client.current = None
        with pytest.raises(NoIdentity):
            await session.get(server.url)


async def test_a_server_shows_its_newest_certificate() -> None:
    """Without a restart."""
    async with serving(source("/old")) as server:
        await ask(source("/agent"), server, "spiffe://example.org/old")
        server.source.current = AUTHORITY.leaf("/new")
        await ask(source("/agent"), server, "spiffe://example.org/new")
        server.source.current = None
        with pytest.raises(aiohttp.ClientError):
            await ask(source("/agent"), server, "spiffe://example.org/new")


async def test_an_operator_may_be_recognised_without_a_spiffe_id() -> None:
    """`recognise` is asked first; whom it doesn't know is judged as a peer."""
    operator = SelfSigned.make("operator", CLOCK.now())
    der = operator.der()
    seen: list[object] = []

    async def hello(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.append(tls.peer_of(request.transport.get_extra_info("ssl_object")))
        return web.Response()

    context = server_context(
        source(), extra_anchors=lambda: [der], recognise=lambda chain: "operator" if chain[0] == der else None
    )
    app = web.Application()
    app.add_routes([web.get("/", hello)])
    async with listen_plain(app, context) as url:
        mine = tls.client_context(
            tls.TlsMaterial(
                chain_pem=operator.chain_pem(),
                key_pem=operator.key_pem(),
                anchors_der=BundleSet.of(AUTHORITY.bundle()).anchors_der(),
            ),
            lambda chain: chain,
            on_refusal=lambda problem: None,
        )
        async with aiohttp.ClientSession() as session, session.get(url, ssl=mine):
            assert seen == ["operator"]


@asynccontextmanager
async def listen_plain(app: web.Application, context: object) -> AsyncIterator[str]:
    """An application of aiohttp's own."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)  # type: ignore[arg-type]
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"https://{host}:{port}/"
    finally:
        await runner.cleanup()


async def test_a_peer_its_issuer_took_back_is_refused_on_a_new_connection() -> None:
    """By a list that came while the server ran; another leaf of the same identity is still let in."""
    async with serving(source()) as server:
        client = source("/agent")
        assert await ask(client, server) == "spiffe://example.org/agent"
        serial = client.svid.chain[0].serial_number
        server.source.revocations = RevocationLists.of([make_list(AUTHORITY, [serial], now=CLOCK.now())])
        with pytest.raises(aiohttp.ClientError):
            await ask(client, server)
        assert {one.code for one in server.refused} == {"revoked"}
        assert await ask(source("/agent"), server) == "spiffe://example.org/agent"


async def test_a_server_its_issuer_took_back_gets_no_byte() -> None:
    """The client looks as well."""
    async with serving(source()) as server:
        client = source("/agent")
        serial = server.source.svid.chain[0].serial_number
        client.revocations = RevocationLists.of([make_list(AUTHORITY, [serial], now=CLOCK.now())])
        with pytest.raises(aiohttp.ClientError, match="revoked"):
            await ask(client, server)
    assert server.peers == []


async def test_the_list_of_another_authority_takes_nothing_back() -> None:
    """A federated domain that lists our serial, in its own name or in ours (traps 15)."""
    async with serving(source("/server", AUTHORITY, AUTHORITY, FOREIGN)) as server:
        client = source("/agent")
        serial = client.svid.chain[0].serial_number
        forged = make_list(AUTHORITY, [serial], number=99, now=CLOCK.now(), key=FOREIGN.issuer_key)
        server.source.revocations = RevocationLists.of([make_list(FOREIGN, [serial], now=CLOCK.now()), forged])
        assert await ask(client, server) == "spiffe://example.org/agent"
