"""spiffe-tls of PyPI and our own contexts do mutual TLS with our SVIDs: each with itself and with the other."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from attestor.client.source import X509Source
from attestor.client.tls import client_context, server_context
from ca.spiffe.id import SpiffeId
from journeys.processes import PATIENCE, Running, finished, started
from journeys.up import TRUST_DOMAIN, RunningUp, up

OWN, OTHER = f"spiffe://{TRUST_DOMAIN}/foreign", f"spiffe://{TRUST_DOMAIN}/other"
SCRIPT = str(Path(__file__).with_name("foreign_tls.py"))
RULES = """\
rules:
  - name: foreign
    when: ["unix:uid:0"]
    spiffe_id: /foreign
    children: true
"""


@asynccontextmanager
async def foreign_server(running: RunningUp, wanted: str) -> AsyncIterator[tuple[Running, int]]:
    """spiffe-tls listens, for clients with the identity `wanted`."""
    command = (sys.executable, "-I", SCRIPT, "listen", running.workload_api, wanted)
    async with started(*command, folder=running.places.state.parent, name="listen") as server:
        yield server, json.loads(await server.line("port"))["port"]


async def dialled(running: RunningUp, port: int, wanted: str) -> dict[str, Any]:
    """What spiffe-tls says after calling a server that must be `wanted`."""
    command = (sys.executable, "-I", SCRIPT, "dial", running.workload_api, str(port), wanted)
    found = await finished(*command, folder=running.places.state.parent)
    assert found.code == 0, found.err
    return dict(json.loads(found.out.splitlines()[-1]))


async def word(port: int, context: ssl.SSLContext) -> bytes:
    """What our own client gets back; nothing when either end refuses."""
    async with asyncio.timeout(PATIENCE):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"hello")
            return await reader.read(1024)
        except OSError:
            return b""
        finally:
            with suppress(UnboundLocalError):
                writer.transport.abort()


@asynccontextmanager
async def our_server(source: X509Source, wanted: str) -> AsyncIterator[int]:
    """Our own context on a free port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1024))
        await writer.drain()
        writer.close()

    context = server_context(source, lambda peer: peer == SpiffeId.parse(wanted))
    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_spiffe_tls_speaks_with_itself_and_with_us() -> None:
    """Both ways, each end checking the other's SPIFFE ID."""
    async with up(rules=RULES) as running, X509Source.open(running.workload_api) as source:
        async with foreign_server(running, OWN) as (server, port):
            assert await dialled(running, port, OWN) == {"heard": "hello"}
            assert json.loads(await server.line()) == {"served": True}
            assert await word(port, client_context(source, lambda peer: str(peer) == OWN)) == b"hello"
            assert json.loads(await server.line()) == {"served": True}
        async with our_server(source, OWN) as port:
            assert await dialled(running, port, OWN) == {"heard": "hello"}


@pytest.mark.parametrize("end", ["server", "client"])
async def test_either_end_refuses_who_it_does_not_want(end: str) -> None:
    """With chains that are good in themselves: it is the name that decides."""
    server_wants, client_wants = (OTHER, OWN) if end == "server" else (OWN, OTHER)
    async with up(rules=RULES) as running, X509Source.open(running.workload_api) as source:
        async with foreign_server(running, server_wants) as (server, port):
            assert "refused" in await dialled(running, port, client_wants)
            assert json.loads(await server.line()) == {"served": False}
            assert await word(port, client_context(source, lambda peer: str(peer) == client_wants)) == b""
            assert json.loads(await server.line()) == {"served": False}
        async with our_server(source, server_wants) as port:
            assert (await dialled(running, port, client_wants)).get("heard", "") == ""
