"""T35: TLS resumption after expiry: a session of yesterday's leaf opens nothing, in no version of TLS."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import Sequence
from datetime import timedelta

import pytest

from ca.errors import Problem
from ca.spiffe.errors import Revoked
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Peer, X509Svid, verify
from ca.tls import server_context
from fakes.revocations import make_list
from fakes.tls_ends import End, authority, end, serving

OWN = authority()
CLIENT: X509Svid = OWN.leaf("/agent", ttl=timedelta(hours=20))


class Server:
    """One whose time goes on, and who may hold lists."""

    def __init__(self) -> None:
        self.end: End = end(OWN, "/server")
        self.later, self.lists = timedelta(0), RevocationLists()
        self.refusals: list[Problem] = []

    def verify(self, chain: Sequence[bytes]) -> X509Peer:
        """The SPIFFE check at this server's time."""
        return verify(chain, self.end.bundles, OWN.now + self.later, self.lists)

    def context(self) -> ssl.SSLContext:
        """A live server context."""
        return server_context(lambda: self.end.material, self.verify, on_refusal=self.refusals.append)


def keeper(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client as somebody else has it, which keeps sessions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    descriptor = os.memfd_create("test")
    os.write(descriptor, CLIENT.chain_pem() + CLIENT.key_pem())
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return context


def say(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bytes]:
    """One line over a connection that tries to resume: the session after it, and what came back."""
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        try:
            with context.wrap_socket(raw, session=session) as connection:
                connection.sendall(b"hello\n")
                return connection.session, connection.recv(100)
        except OSError:
            return session, b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("why", ["expired", "revoked"])
async def test_a_kept_session_opens_nothing_afterwards(version: ssl.TLSVersion, why: str) -> None:
    """It worked while the leaf was good; then neither with the session, nor a second time, nor anew."""
    server = Server()
    context = keeper(version)
    async with serving(server.context()) as served:
        session, answer = await asyncio.to_thread(say, served.port, context, None)
        assert answer == b"hello\n"
        if why == "expired":
            server.later = timedelta(hours=20, seconds=1)
        else:
            server.lists = RevocationLists.of([make_list(OWN, [CLIENT.chain[0].serial_number], now=OWN.now)])
        for kept in (session, session, None):
            gc.collect()
            assert (await asyncio.to_thread(say, served.port, context, kept))[1] == b""
        assert served.received == [b"hello\n"]
    assert len(server.refusals) == 3
    last = server.refusals[-1]
    assert isinstance(last, Revoked) if why == "revoked" else "expired at" in str(last)
