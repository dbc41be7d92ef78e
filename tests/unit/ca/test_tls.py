"""The handshake hook on real connections: who gets through, who does not, and what is told about it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector, web

from ca.errors import Problem
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.x509svid import X509Peer, X509Svid
from ca.tls import TlsMaterial, client_context, peer_of, server_context
from fakes.pki import Oddities, SelfSigned, der_chain, make_key
from fakes.tls_ends import CLOCK, ask, authority, end, refused, serving


async def test_both_ends_know_each_other() -> None:
    """After the handshake each end holds the other's verified identity."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    async with serving(server.server()) as served:
        answer, seen = await ask(served.port, client.client())
    assert answer == b"hello\n"
    assert isinstance(seen, X509Peer)
    assert str(seen.id) == "spiffe://example.org/server"
    assert [str(peer.id) for peer in served.peers if isinstance(peer, X509Peer)] == ["spiffe://example.org/client"]
    assert not server.refusals + client.refusals


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_pass_the_hook(version: ssl.TLSVersion) -> None:
    """In TLS 1.2 and 1.3 alike a good peer is known and a foreign one refused."""
    own, foreign = authority(), authority("foreign.org")
    server = end(own, "/server", foreign)
    server.bundles = BundleSet.of(own.bundle())  # OpenSSL would admit the foreign domain, the verifier does not know it
    good, bad = end(own, "/client").client(), end(foreign, "/client", own).client()
    good.minimum_version = good.maximum_version = bad.minimum_version = bad.maximum_version = version
    async with serving(server.server()) as served:
        assert (await ask(served.port, good))[0] == b"hello\n"
        await refused(served.port, bad)
    assert served.received == [b"hello\n"]
    assert len(served.peers) == 1


async def test_a_foreign_certificate_is_refused_before_the_first_byte() -> None:
    """Nothing of what it sent is read, and the log hears reason and claimed name (traps 38)."""
    own, foreign = authority(), authority("foreign.org")
    server = end(own, "/server", foreign)
    server.bundles = BundleSet.of(own.bundle())
    async with serving(server.server()) as served:
        await refused(served.port, end(foreign, "/evil", own).client())
    assert not served.received
    assert not served.peers
    [problem] = server.refusals
    assert isinstance(problem, Untrusted)
    assert "no bundle is known for the trust domain `foreign.org`" in str(problem)
    assert problem.details["peer"] == "spiffe://foreign.org/evil"


async def test_a_federated_authority_can_not_forge_our_ids() -> None:
    """OpenSSL's pooled store admits the chain; the bundle of the claimed domain refuses it."""
    own, foreign = authority(), authority("foreign.org")
    server, forger = end(own, "/server", foreign), end(foreign, "/x", own)
    key = make_key()
    certificate = foreign.certificate(odd=Oddities(uris=["spiffe://example.org/admin"], key=key))
    forger.material = TlsMaterial.of(X509Svid.of(foreign.chain(certificate), key), forger.bundles)
    async with serving(server.server()) as served:
        await refused(served.port, forger.client())
    assert not served.received
    assert "leads to no authority of `example.org`" in str(server.refusals[0])


async def test_a_certificate_openssl_itself_refuses_is_told_too() -> None:
    """An authority nobody gave an anchor for does not reach the verifier."""
    own, stranger = authority(), authority("stranger.org")
    server = end(own, "/server")
    async with serving(server.server()) as served:
        await refused(served.port, end(stranger, "/evil", own).client())
    assert not served.received
    [problem] = server.refusals
    assert problem.code == "handshake-refused"
    assert "TLS handshake failed" in str(problem)


async def test_a_client_without_a_certificate_is_refused() -> None:
    """Where one is required."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    client.material = TlsMaterial(chain_pem=b"", key_pem=b"", anchors_der=client.material.anchors_der)
    async with serving(server.server()) as served:
        await refused(served.port, client.client())
    assert not served.received
    assert "did not return a certificate" in str(server.refusals[0])


async def test_a_client_without_a_certificate_is_nobody_where_none_is_required() -> None:
    """It is let in without a peer; a bad certificate is still refused."""
    own, foreign = authority(), authority("foreign.org")
    server, client = end(own, "/server", foreign), end(own, "/client")
    server.bundles = BundleSet.of(own.bundle())
    context = server.server(client_certificate=False)
    bare = TlsMaterial(chain_pem=b"", key_pem=b"", anchors_der=client.material.anchors_der)
    async with serving(context) as served:
        assert (await ask(served.port, client_context(bare, client.verify, on_refusal=print)))[0] == b"hello\n"
        assert (await ask(served.port, client.client()))[0] == b"hello\n"
        await refused(served.port, end(foreign, "/evil", own).client())
    assert served.peers[0] is None
    assert isinstance(served.peers[1], X509Peer)
    assert len(served.peers) == 2


async def test_a_client_refuses_a_foreign_server_before_it_says_anything() -> None:
    """And its caller hears why."""
    own, foreign = authority(), authority("foreign.org")
    server, client = end(foreign, "/server", own), end(own, "/client", foreign)
    client.bundles = BundleSet.of(own.bundle())
    async with serving(server.server()) as served:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"foreign\.org") as caught:
            await ask(served.port, client.client())
    assert isinstance(caught.value.__cause__, Untrusted)
    assert [problem.details["peer"] for problem in client.refusals] == ["spiffe://foreign.org/server"]
    assert b"hello\n" not in served.received


async def test_without_material_the_verifier_alone_decides() -> None:
    """As for a node that knows its server by a pinned key: no anchor, no certificate, still no fail-open."""
    own = authority()
    server = end(own, "/server")
    pinned = der_chain([own.issuer])[0]

    def pin(chain: Sequence[bytes]) -> str:
        if pinned not in chain:
            raise Untrusted("the server does not hold the pinned key")
        return "pinned"

    refusals: list[Problem] = []
    context = client_context(None, pin, on_refusal=refusals.append)
    async with serving(server.server(client_certificate=False)) as served:
        assert (await ask(served.port, context)) == (b"hello\n", "pinned")
        server.material = end(authority(), "/server").material
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(served.port, context)
    assert "pinned key" in str(refusals[0])


async def test_an_anchor_may_be_a_leaf_and_the_verifier_decides_about_it() -> None:
    """An operator's self-signed certificate is admitted when it is given as an anchor, and only that one."""
    own = authority()
    operator, other = (SelfSigned.make(name, CLOCK.now()) for name in ("operator", "other"))
    server = end(own, "/server", extra=[operator.der()])

    def recognise(chain: Sequence[bytes]) -> object:
        return "the operator" if chain[0] == operator.der() else server.verify(chain)

    context = server_context(lambda: server.material, recognise, on_refusal=server.refusals.append)
    async with serving(context) as served:
        for who in (operator, other):
            anchors = server.material.anchors_der
            material = TlsMaterial(chain_pem=who.chain_pem(), key_pem=who.key_pem(), anchors_der=anchors)
            shown = client_context(material, server.verify, on_refusal=print)
            if who is operator:
                assert (await ask(served.port, shown))[0] == b"hello\n"
            else:
                await refused(served.port, shown)
        assert (await ask(served.port, end(own, "/client").client()))[0] == b"hello\n"
    assert served.peers[0] == "the operator"
    assert isinstance(served.peers[1], X509Peer)


async def test_a_verifier_with_a_bug_lets_nobody_in() -> None:
    """Any exception is a no; one that is our own mistake reaches the loop's handler."""
    own = authority()
    server = end(own, "/server")

    def broken(_: Sequence[bytes]) -> object:
        raise ZeroDivisionError

    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context.get("exception")))
    async with serving(server_context(lambda: server.material, broken, on_refusal=print)) as served:
        await refused(served.port, end(own, "/client").client())
    assert not served.peers
    assert [type(each) for each in heard] == [ZeroDivisionError]


async def test_an_expired_certificate_is_refused() -> None:
    """By OpenSSL's clock or by ours, whichever sees it first."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    late = own.leaf("/client", now=CLOCK.now() - timedelta(hours=1), ttl=timedelta(minutes=1))
    client.material = TlsMaterial.of(late, client.bundles)
    async with serving(server.server()) as served:
        await refused(served.port, client.client())
    assert not served.received
    assert "expired" in str(server.refusals[0])


async def test_an_aiohttp_handler_sees_its_peer() -> None:
    """Through the transport of the request; a refused peer reaches no handler and its client a closed line."""
    own, foreign = authority(), authority("foreign.org")
    server = end(own, "/server", foreign)
    server.bundles = BundleSet.of(own.bundle())
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = peer_of(request.transport.get_extra_info("ssl_object"))
        calls.append(str(peer.id) if isinstance(peer, X509Peer) else "nobody")
        return web.Response(text=calls[-1])

    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server.server())
    await site.start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with fetching(end(own, "/client").client()) as session, session.get(url) as answer:
            assert await answer.text() == "spiffe://example.org/client"
        async with fetching(end(foreign, "/evil", own).client()) as session:
            with pytest.raises(ClientConnectionError):
                await session.get(url)
    finally:
        await runner.cleanup()
    assert calls == ["spiffe://example.org/client"]
    assert {str(problem.details["peer"]) for problem in server.refusals} == {"spiffe://foreign.org/evil"}


async def test_a_connection_without_the_hook_has_no_peer() -> None:
    """Plain TLS, no TLS at all."""
    context = ssl.create_default_context()
    plain = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")
    assert peer_of(plain) is None
    assert peer_of(None) is None


@asynccontextmanager
async def fetching(context: ssl.SSLContext) -> AsyncIterator[ClientSession]:
    """An aiohttp client over this context."""
    async with ClientSession(connector=TCPConnector(ssl=context)) as session:
        yield session
