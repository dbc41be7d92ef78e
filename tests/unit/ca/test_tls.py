"""The handshake hook on real connections: who gets through, who does not, and what is told about it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector, web
from cryptography.hazmat.primitives import serialization

from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.clock import SystemClock
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.x509svid import X509Peer, X509Svid, verify
from ca.tls import TlsMaterial, client_context, peer_of, server_context
from fakes.pki import Oddities, SelfSigned, TestAuthority, der_chain, make_key

CLOCK = SystemClock()


@dataclass
class End:
    """One end of a connection: what it shows, whom it trusts, and what it was told."""

    material: TlsMaterial
    bundles: BundleSet
    refusals: list[Problem] = field(default_factory=list)

    def verify(self, chain: Sequence[bytes]) -> X509Peer:
        """The SPIFFE check, as everybody uses it."""
        return verify(chain, self.bundles, CLOCK.now())

    def server(self, *, client_certificate: bool = True, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """A live server context."""
        return server_context(
            lambda: self.material,
            self.verify,
            on_refusal=self.refusals.append,
            client_certificate=client_certificate,
            alpn=alpn,
        )

    def client(self, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """A client context of this moment."""
        return client_context(self.material, self.verify, on_refusal=self.refusals.append, alpn=alpn)


def authority(name: str = "example.org") -> TestAuthority:
    """Certificates for the real time: OpenSSL asks the machine's own clock."""
    return TestAuthority(name, now=CLOCK.now())


def end(own: TestAuthority, path: str, *trusted: TestAuthority, extra: Sequence[bytes] = ()) -> End:
    """An honest end that trusts its own domain and `trusted`."""
    bundles = BundleSet.of(own.bundle(), *(each.bundle() for each in trusted))
    return End(TlsMaterial.of(own.leaf(path), bundles, extra), bundles)


@dataclass
class Served:
    """A server that answers one line with the peer it knows."""

    port: int
    peers: list[object | None] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Served]:
    """An echo over TLS on a free port."""
    served = Served(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.peers.append(peer_of(writer.get_extra_info("ssl_object")))
        line = await reader.readline()
        served.received.append(line)
        writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    served.port = server.sockets[0].getsockname()[1]
    async with server:
        yield served


async def ask(port: int, context: ssl.SSLContext) -> tuple[bytes, object | None]:
    """Say one line; what came back, and who the server is."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            peer = peer_of(writer.get_extra_info("ssl_object"))
            writer.write(b"hello\n")
            return await reader.readline(), peer
        finally:
            writer.close()


async def refused(port: int, context: ssl.SSLContext) -> None:
    """The connection carries no answer: it fails, or ends empty."""
    try:
        answer, _ = await ask(port, context)
    except (OSError, EOFError):
        return
    assert answer == b""


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


async def test_older_versions_of_tls_are_refused() -> None:
    """1.2 is the least."""
    assert end(authority(), "/a").server().minimum_version == ssl.TLSVersion.TLSv1_2
    assert end(authority(), "/a").client().minimum_version == ssl.TLSVersion.TLSv1_2


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


async def test_the_next_handshake_sees_new_material() -> None:
    """A new certificate is shown and a new domain admitted without a restart, an old one refused; open ones go on."""
    own, foreign = authority(), authority("foreign.org")
    server, stranger = end(own, "/server"), end(foreign, "/client", own)
    async with serving(server.server()) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=end(own, "/client").client())
        await refused(served.port, stranger.client())
        server.bundles = BundleSet.of(own.bundle(), foreign.bundle())
        server.material = TlsMaterial.of(own.leaf("/server/2"), server.bundles)
        _, seen = await ask(served.port, stranger.client())
        assert str(getattr(seen, "id", "")) == "spiffe://example.org/server/2"
        server.bundles = BundleSet.of(own.bundle())
        server.material = TlsMaterial.of(own.leaf("/server/3"), server.bundles)
        await refused(served.port, stranger.client())
        writer.write(b"still there\n")
        assert await reader.readline() == b"still there\n"
        writer.close()


async def test_a_context_is_built_once_per_material() -> None:
    """The same object costs one reading of key and anchors, however many handshakes there are."""
    own = authority()
    server = end(own, "/server")
    asked: list[TlsMaterial] = []

    def current() -> TlsMaterial:
        asked.append(server.material)
        return server.material

    seen: list[ssl.SSLContext] = []

    def remember(chain: Sequence[bytes]) -> X509Peer:
        return server.verify(chain)

    context = server_context(current, remember, on_refusal=server.refusals.append)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").context)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        for _ in range(2):
            await refused(port, end(own, "/client").client())
        server.material = TlsMaterial.of(own.leaf("/server"), server.bundles)
        await refused(port, end(own, "/client").client())
    assert len(asked) == 3
    assert seen[0] is seen[1]
    assert seen[1] is not seen[2]


async def test_without_material_a_server_fails_each_handshake_and_goes_on() -> None:
    """A server whose first certificate has not come yet says so; the next handshake may do better."""
    own = authority()
    server, ready = end(own, "/server"), False

    def current() -> TlsMaterial:
        if not ready:
            raise Unavailable("there is no certificate yet")
        return server.material

    context = server_context(current, server.verify, on_refusal=server.refusals.append)
    async with serving(context) as served:
        await refused(served.port, end(own, "/client").client())
        assert "no certificate yet" in str(server.refusals[0])
        ready = True
        assert (await ask(served.port, end(own, "/client").client()))[0] == b"hello\n"


async def test_no_session_is_ever_resumed() -> None:
    """No tickets at all; in TLS 1.2 the server's own memory of a session is refused, and forgotten by that."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    told: list[str] = []
    outer = server_context(lambda: server.material, server.verify, on_refusal=lambda problem: told.append(str(problem)))
    assert outer.num_tickets == 0
    assert outer.options & ssl.OP_NO_TICKET
    async with serving(outer) as served:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = plain_client(client)
            context.minimum_version = context.maximum_version = version
            session, reused, answer = await asyncio.to_thread(blocking, served.port, context, None)
            assert (reused, answer) == (False, b"hello\n")
            _, reused, answer = await asyncio.to_thread(blocking, served.port, context, session)
            assert not reused or answer == b""
            gc.collect()  # OpenSSL forgets the session when the refused connection is freed
            _, reused, answer = await asyncio.to_thread(blocking, served.port, context, session)
            assert (reused, answer) == (False, b"hello\n")
    assert all("resumed" in each for each in told)


def plain_client(client: End) -> ssl.SSLContext:
    """A client as somebody else has it, which may try to resume."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=b"".join(client.material.anchors_der))
    descriptor = os.memfd_create("test")
    os.write(descriptor, client.material.chain_pem + client.material.key_pem)
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return context


def blocking(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool, bytes]:
    """One line over a blocking connection: the session after it, whether it was resumed, what came back."""
    with (
        socket.create_connection(("127.0.0.1", port), 60) as raw,
        context.wrap_socket(raw, session=session) as connection,
    ):
        try:
            connection.sendall(b"hello\n")
            answer = connection.recv(100)
        except OSError:
            answer = b""
        return connection.session, bool(connection.session_reused), answer


async def test_a_blocking_socket_can_not_skip_the_hook() -> None:
    """The context refuses to be used in the one way that would not pass it."""
    context = end(authority(), "/a").client()
    with socket.socket() as raw, pytest.raises(RuntimeError, match="asyncio"):
        context.wrap_socket(raw)


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


async def test_alpn_is_agreed_on_after_the_switch_of_contexts() -> None:
    """GRPC needs it."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    async with serving(server.server(alpn=["h2"])) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client.client(alpn=["h2", "http/1.1"]))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()


async def test_material_that_can_not_be_used_is_malformed() -> None:
    """A key of another certificate, an anchor that is none; the key is not in the sentence and no terminal is asked."""
    own = authority()
    good, other = end(own, "/a").material, end(own, "/b").material
    broken = [
        TlsMaterial(chain_pem=good.chain_pem, key_pem=other.key_pem, anchors_der=good.anchors_der),
        TlsMaterial(chain_pem=good.chain_pem, key_pem=b"", anchors_der=good.anchors_der),
        TlsMaterial(chain_pem=b"x", key_pem=b"x", anchors_der=good.anchors_der),
        TlsMaterial(chain_pem=good.chain_pem, key_pem=good.key_pem, anchors_der=(b"x",)),
        TlsMaterial(chain_pem=good.chain_pem, key_pem=locked_key(), anchors_der=()),
    ]
    for material in broken:
        with pytest.raises(Malformed, match="TLS can't use"):
            client_context(material, lambda _: None, on_refusal=print)


def locked_key() -> bytes:
    """A key that asks for a password."""
    secret = serialization.BestAvailableEncryption(b"x")
    return make_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)


async def test_law_4_a_key_touches_no_disk_and_stays_in_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from memory: with every folder for temporary files gone, and nothing left open."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path / "gone"))
    client = end(authority(), "/a")
    before = sorted(Path("/proc/self/fd").iterdir())
    client.client()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert "PRIVATE KEY" not in repr(client.material)


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
