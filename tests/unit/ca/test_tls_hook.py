"""Blocking sockets pass the same hook as asyncio's, and no road leads around it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.x509svid import X509Peer
from ca.tls import peer_of
from fakes.tls_ends import PATIENCE, End, ask, authority, end, heard, listening, serving


@contextmanager
def dialled(port: int, context: ssl.SSLContext, *, at_once: bool = True) -> Iterator[ssl.SSLSocket]:
    """A blocking client."""
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with closing(raw), context.wrap_socket(raw, do_handshake_on_connect=at_once) as connection:
        yield connection


def said(port: int, context: ssl.SSLContext) -> tuple[bytes, X509Peer]:
    """One line and its echo, and who echoed."""
    with dialled(port, context) as connection:
        connection.sendall(b"hello\n")
        return connection.recv(100), peer_of(connection)  # type: ignore[return-value]


async def test_both_ends_know_each_other_over_blocking_sockets() -> None:
    """A client of threads and a server of threads, each with the other kind at its far end."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    async with serving(server.server()) as served:
        answer, peer = await asyncio.to_thread(said, served.port, client.client())
    assert (answer, str(peer.id)) == (b"hello\n", "spiffe://example.org/server")
    with listening() as listener:
        echo = asyncio.to_thread(echoed, listener, server.server())
        (answer, seen), met = await asyncio.gather(ask(listener.getsockname()[1], client.client()), echo)
    assert (answer, str(met)) == (b"hello\n", "spiffe://example.org/client")
    assert isinstance(seen, X509Peer)


def echoed(listener: socket.socket, context: ssl.SSLContext) -> str:
    """Answer one client; who it was."""
    raw, _ = listener.accept()
    raw.settimeout(PATIENCE)
    with closing(raw), context.wrap_socket(raw, server_side=True) as connection:
        connection.sendall(connection.recv(100))
        return str(peer_of(connection).id)  # type: ignore[union-attr]


async def test_a_blocking_server_shows_its_newest_certificate() -> None:
    """The switch of contexts in the handshake works for a socket too."""
    own = authority()
    server, client = end(own, "/old"), end(own, "/client")
    context = server.server()
    with listening() as listener:
        for path in ("/old", "/new"):
            server.material = end(own, path).material
            dial = asyncio.to_thread(said, listener.getsockname()[1], client.client())
            _, (_, peer) = await asyncio.gather(asyncio.to_thread(echoed, listener, context), dial)
            assert peer.id.path == path


def foreign() -> tuple[End, End]:
    """A server and a client that admits it by OpenSSL and not by its bundle."""
    own, other = authority(), authority("foreign.org")
    server, client = end(other, "/server", own), end(own, "/client", other)
    client.bundles = BundleSet.of(own.bundle())
    return server, client


async def test_a_foreign_server_is_refused_before_a_byte() -> None:
    """And the caller hears why."""
    server, client = foreign()
    with listening() as listener:
        hear = asyncio.to_thread(heard, listener, server.server())
        say = asyncio.to_thread(said, listener.getsockname()[1], client.client())
        refusal, got = await asyncio.gather(say, hear, return_exceptions=True)
    assert isinstance(refusal, ssl.SSLCertVerificationError)
    assert isinstance(refusal.__cause__, Untrusted)
    assert "foreign.org" in str(refusal)
    assert got == b""


SPEAK: dict[str, Callable[[ssl.SSLSocket], object]] = {
    "write": lambda one: one.write(b"x"),
    "send": lambda one: one.send(b"x"),
    "sendall": lambda one: one.sendall(b"x"),
    "read": lambda one: one.read(1),
    "recv": lambda one: one.recv(1),
    "recv_into": lambda one: one.recv_into(bytearray(1)),
    "makefile": lambda one: one.makefile("rb").read(1),
}


@pytest.mark.parametrize("way", SPEAK)
def test_no_byte_travels_before_the_handshake(way: str) -> None:
    """The library would shake hands by itself here, and the peer would be nobody."""
    client = end(authority(), "/client")
    with listening() as listener:
        port = listener.getsockname()[1]
        with dialled(port, client.client(), at_once=False) as connection:
            with pytest.raises(RuntimeError, match="before its handshake"):
                SPEAK[way](connection)
            assert client.met == []
        accepted, _ = listener.accept()
        with closing(accepted):
            assert accepted.recv(1) == b""


@pytest.mark.parametrize("way", SPEAK)
async def test_no_byte_travels_after_a_refusal(way: str) -> None:
    """A caller that swallows the error can't go on all the same."""
    server, client = foreign()

    def goes_on(port: int) -> None:
        with dialled(port, client.client(), at_once=False) as connection:
            with pytest.raises(ssl.SSLCertVerificationError):
                connection.do_handshake()
            with pytest.raises(RuntimeError, match="before its handshake"):
                SPEAK[way](connection)
            assert peer_of(connection) is None

    with listening() as listener:
        hear = asyncio.to_thread(heard, listener, server.server())
        _, got = await asyncio.gather(asyncio.to_thread(goes_on, listener.getsockname()[1]), hear)
    assert got == b""


@pytest.mark.parametrize("way", SPEAK)
async def test_nothing_travels_in_the_clear_when_tls_was_closed(way: str) -> None:
    """The library forgets TLS at a `shutdown`, of one direction too, and would send on without it."""
    own = authority()
    client = end(own, "/client")

    def half_closed(port: int) -> None:
        with dialled(port, client.client()) as connection:
            connection.shutdown(socket.SHUT_RD)
            with pytest.raises(OSError, match="in the clear"):
                SPEAK[way](connection)

    with listening() as listener:
        hear = asyncio.to_thread(heard, listener, end(own, "/server").server())
        _, got = await asyncio.gather(asyncio.to_thread(half_closed, listener.getsockname()[1]), hear)
    assert got == b""


def test_a_connection_in_memory_carries_nothing_before_its_handshake() -> None:
    """As asyncio and uvloop hold it."""
    context = end(authority(), "/a").client()
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    for early in (lambda: connection.write(b"x"), connection.read):
        with pytest.raises(RuntimeError, match="before its handshake"):
            early()
