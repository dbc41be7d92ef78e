"""Two ends of a TLS connection on loopback, for tests of who gets through.

OpenSSL asks the machine's own clock, so the certificates here are of the real time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field

from ca.errors import Problem
from ca.runtime.clock import SystemClock
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Peer, verify
from ca.tls import TlsMaterial, client_context, peer_of, server_context
from fakes.pki import TestAuthority

CLOCK = SystemClock()
PATIENCE = 60


@dataclass
class End:
    """One end of a connection: what it shows, whom it trusts, and what it was told."""

    material: TlsMaterial
    bundles: BundleSet
    refusals: list[Problem] = field(default_factory=list)
    met: list[X509Peer] = field(default_factory=list)

    def verify(self, chain: Sequence[bytes]) -> X509Peer:
        """The SPIFFE check, as everybody uses it."""
        self.met.append(verify(chain, self.bundles, CLOCK.now()))
        return self.met[-1]

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
    return End(TlsMaterial.of(own.leaf(path, now=CLOCK.now()), bundles, extra), bundles)


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


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A listener on a free port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def heard(listener: socket.socket, context: ssl.SSLContext) -> bytes:
    """All that one client says after a handshake that this end thinks well of."""
    raw, _ = listener.accept()
    raw.settimeout(PATIENCE)
    with closing(raw):
        try:
            with context.wrap_socket(raw, server_side=True) as connection:
                return connection.recv(100)
        except OSError:
            return b""
