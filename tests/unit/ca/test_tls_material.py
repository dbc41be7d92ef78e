"""What a TLS end shows: renewed while it serves, never on a disk, and no session outlives it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ca.errors import Malformed, Unavailable
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Peer
from ca.tls import TlsMaterial, client_context, server_context
from fakes.pki import make_key
from fakes.tls_ends import End, ask, authority, end, refused, serving


async def test_older_versions_of_tls_are_refused() -> None:
    """1.2 is the least."""
    assert end(authority(), "/a").server().minimum_version == ssl.TLSVersion.TLSv1_2
    assert end(authority(), "/a").client().minimum_version == ssl.TLSVersion.TLSv1_2


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
