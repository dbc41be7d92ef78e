"""What OpenSSL says, with what to look at: by real handshakes."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta

import pytest

from ca.errors import Problem
from ca.tls import TlsMaterial
from fakes.tls_ends import CLOCK, End, ask, authority, end, heard, listening, serving


@pytest.mark.parametrize(
    ("age", "words"),
    [(timedelta(hours=1), "was not rotated in time"), (timedelta(hours=-1), "one of the clocks is wrong")],
    ids=["an hour old", "of an hour to come"],
)
async def test_a_clock_that_is_wrong(age: timedelta, words: str) -> None:
    """Both the log and whoever called hear it."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    leaf = own.leaf("/server", now=CLOCK.now() - age, ttl=timedelta(minutes=1))
    server.material = TlsMaterial.of(leaf, server.bundles)
    async with serving(server.server()) as served:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await ask(served.port, client.client())
    assert isinstance(caught.value.__cause__, Problem)
    assert words in str(caught.value.__cause__)
    assert words in str(client.refusals[0])


async def test_a_bundle_that_is_old() -> None:
    """The authority was replaced and this end was not told."""
    server, client = end(authority(), "/server"), end(authority(), "/client")
    refusal = await dialled(server, client)
    assert "the bundle is old, or that domain is not federated" in str(refusal.__cause__)
    assert "closed without a word" in str(server.refusals[0])  # asyncio throws the alert away


async def dialled(server: End, client: End) -> BaseException:
    """What our client hears that waits for the first word of a blocking server."""

    async def listen(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client.client())
        try:
            await reader.read(1)
        finally:
            writer.close()

    with listening() as listener:
        hear = asyncio.to_thread(heard, listener, server.server())
        refusal, got = await asyncio.gather(listen(listener.getsockname()[1]), hear, return_exceptions=True)
    assert got == b""
    assert isinstance(refusal, BaseException)
    return refusal


async def test_a_server_that_does_not_know_us() -> None:
    """In TLS 1.3 its alert comes after the client's handshake, at the first read."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    client.material = TlsMaterial.of(authority().leaf("/client", now=CLOCK.now()), client.bundles)
    assert "does not know our authority" in str((await dialled(server, client)).__cause__)
    assert "is not in a bundle known here" in str(server.refusals[0])


async def test_a_server_that_wants_an_svid() -> None:
    """And is shown none."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    client.material = TlsMaterial(chain_pem=b"", key_pem=b"", anchors_der=client.material.anchors_der)
    assert "wants an SVID and was shown none" in str((await dialled(server, client)).__cause__)
    assert "the client has no SVID" in str(server.refusals[0])


async def test_a_client_that_speaks_no_tls() -> None:
    """A wrong scheme in somebody's settings."""
    server = end(authority(), "/server")
    with listening() as listener:
        hear = asyncio.to_thread(heard, listener, server.server())
        _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await hear == b""
        writer.close()
    assert "speaks HTTP without TLS" in str(server.refusals[0])
