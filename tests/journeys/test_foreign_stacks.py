"""Other TLS stacks with our SVIDs and bundles from files: rustls (granian) as a server, OpenSSL's own tools both ways.

The certificates are of the real time and from files as `svid write` leaves them.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from attestor.client.files import SvidFiles
from attestor.client.http import client_session
from attestor.client.tls import client_context, server_context
from ca.spiffe.bundle import BundleSet
from ca.spiffe.match import IdPattern
from fakes.material import Material
from fakes.pki import TestAuthority
from fakes.tls_ends import CLOCK, PATIENCE
from journeys.processes import Running, finished, short_folder, started
from servers.standing import free_port

AUTHORITY = TestAuthority(now=CLOCK.now())
STRANGER = TestAuthority(now=CLOCK.now())
SERVER = IdPattern.parse("spiffe://example.org/server")
APP = """\
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """With a folder of files for a server and for a client."""
    with short_folder() as folder:
        for name in ("server", "client"):
            SvidFiles(folder / name).write(AUTHORITY.leaf(f"/{name}"), AUTHORITY.bundle())
        yield folder


def client(authority: TestAuthority = AUTHORITY, path: str = "/client") -> Material:
    """Ours, believing the true authority."""
    return Material(authority.leaf(path), BundleSet.of(AUTHORITY.bundle()), CLOCK)


@asynccontextmanager
async def rustls(place: Path) -> AsyncIterator[str]:
    """Granian, which asks every client for a certificate of our bundle."""
    (place / "hello.py").write_text(APP)
    files, port = place / "server" / "current", free_port()
    command = (
        *(str(Path(sys.executable).with_name("granian")), "--interface", "asgi", "--no-ws"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--working-dir", str(place)),
        *("--ssl-certificate", str(files / "svid.pem"), "--ssl-keyfile", str(files / "key.pem")),
        *("--ssl-ca", str(files / "bundle.pem"), "--ssl-client-verify", "hello:app"),
    )
    async with started(*command, folder=place, name="granian"):
        await until_open(port)
        yield f"https://127.0.0.1:{port}/"


async def until_open(port: int) -> None:
    """Until somebody listens there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await CLOCK.sleep(0.05)
                continue
            writer.close()
            return


async def test_rustls_asks_for_an_svid_and_gets_one(place: Path) -> None:
    """Its own is judged by us; a client of a stranger, of an hour ago or without a certificate gets no answer."""
    async with rustls(place) as url:
        async with client_session(client(), SERVER) as session, session.get(url) as answer:
            assert await answer.text() == "hello"
        old = client()
        old.current = AUTHORITY.leaf("/client", now=CLOCK.now() - timedelta(hours=1), ttl=timedelta(minutes=1))
        for wrong in (client(STRANGER), old):
            with pytest.raises(aiohttp.ClientError):
                async with client_session(wrong, SERVER) as session:
                    await session.get(url)
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session:
                await session.get(url, ssl=False)
        with pytest.raises(aiohttp.ClientError, match="is not who is expected"):
            async with client_session(client(), IdPattern.parse("spiffe://example.org/other")) as session:
                await session.get(url)


def openssl(place: Path, name: str, *more: str) -> tuple[str, ...]:
    """`s_server` or `s_client` with the strict rules of RFC 5280, showing and asking for a certificate."""
    files = place / ("server" if name == "s_server" else "client") / "current"
    shown = ("-cert", "svid.pem", "-cert_chain", "svid.pem", "-key", "key.pem", "-CAfile", "bundle.pem")
    paths = (str(files / word) if word.endswith(".pem") else word for word in shown)
    return ("openssl", name, *paths, "-x509_strict", "-verify_return_error", *more)


@asynccontextmanager
async def openssl_server(place: Path, *more: str) -> AsyncIterator[tuple[Running, int]]:
    """It sends back each line in reverse."""
    command = openssl(place, "s_server", "-accept", "127.0.0.1:0", "-Verify", "4", "-rev", *more)
    async with started(*command, folder=place, name="s_server") as server:
        yield server, int((await server.line("ACCEPT")).rpartition(":")[2])


async def word(port: int, source: Material) -> bytes:
    """What comes back for a word; nothing, when either end refuses."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(source, SERVER))
        try:
            writer.write(b"hello\n")
            return await reader.readline()
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_our_client_and_a_strict_server_of_openssl(place: Path, version: str) -> None:
    """`-x509_strict` finds nothing to complain about; whom it refuses hears of it by our words."""
    async with openssl_server(place, version) as (_, port):
        assert await word(port, client()) == b"olleh\n"
        (refusal,) = await asyncio.gather(word(port, client(STRANGER)), return_exceptions=True)
        assert refusal == b"" or isinstance(refusal, OSError)
        if isinstance(refusal, ssl.SSLError):
            assert "does not know our authority" in str(refusal.__cause__)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_strict_client_of_openssl_and_our_server(place: Path, version: str) -> None:
    """It verifies us without a host name, and our handler knows who it is."""
    met = list[str]()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(str(writer.get_extra_info("ssl_object").peer.id))
        writer.write(await reader.readline())
        writer.close()

    context = server_context(client(path="/server"))
    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context) as server:
        port = str(server.sockets[0].getsockname()[1])
        command = openssl(place, "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-ign_eof", version)
        found = await finished(*command, folder=place, stdin="hello\n")
    assert "hello" in found.out, found
    assert met == ["spiffe://example.org/client"]


@pytest.mark.parametrize(
    ("step", "words"),
    [("+2h", "certificate has expired"), ("-2h", "certificate is not yet valid"), ("+0", "")],
    ids=["ahead", "behind", "right"],
)
async def test_openssl_by_a_clock_that_was_set(place: Path, step: str, words: str) -> None:
    """Its own date checks refuse us, and neither end says a word to the other."""
    heard = list[bytes]()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(heard[-1])
        writer.close()

    context = server_context(client(path="/server"))
    async with await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context) as server:
        port = str(server.sockets[0].getsockname()[1])
        command = openssl(place, "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-ign_eof")
        found = await finished("faketime", "-f", step, *command, folder=place, stdin="hello\n")
    assert words in found.err, found
    assert heard == ([] if words else [b"hello\n"])
