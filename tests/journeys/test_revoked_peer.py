"""A leaf taken back by command: cut from a stream by our aiohttp helper, and refused by a blocking server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import closing, suppress

import aiohttp
from aiohttp import web
from cryptography import x509

from attestor.client.guard import PeerStream, guard
from attestor.client.http import client_session
from attestor.client.source import X509Source
from attestor.client.tls import client_context, server_context
from ca.errors import Problem
from fakes.tls_ends import PATIENCE, heard, listening
from journeys.test_revocation import _OWN, until_named, written
from journeys.up import up

_RULES = f"""\
rules:
  - {{name: journey, when: ["unix:uid:{os.getuid()}"], spiffe_id: /team/journey, children: true}}
"""


async def events(request: web.Request) -> web.StreamResponse:
    """One event at once; the next would come tomorrow."""
    stream = PeerStream()
    await stream.prepare(request)
    await stream.write(b"event\n")
    await asyncio.Event().wait()
    return stream


async def test_a_leaf_revoked_by_command_loses_its_stream_and_gets_no_new_connection() -> None:
    """The stream is silent, so nothing but the look at open requests ends it."""
    refused: list[Problem] = []
    async with up(rules=_RULES) as running, X509Source.open(running.workload_api) as source:
        client = await written(running, source)
        app = web.Application()
        context = guard(app, source, _OWN, refused=refused.append)
        app.router.add_get("/", events)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
        async with asyncio.timeout(PATIENCE), client_session(client, _OWN) as session, session.get(url) as answer:
            assert await answer.content.readline() == b"event\n"
            leaf = client.svid.chain[0]
            issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
            order = ("svid", "revoke", "--serial", f"{leaf.serial_number:x}", "--issuer", issuer.hex(), "--json")
            assert json.loads((await running.sojourn(*order)).out)["leaf_count"] == 1
            await until_named(source, leaf.serial_number)
            with suppress(aiohttp.ClientError):
                assert await answer.content.readline() == b""
        assert [one.code for one in refused] == ["revoked"]
        await runner.cleanup()

        def say(port: int) -> None:
            with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as raw:
                try:
                    with client_context(client, _OWN).wrap_socket(raw) as connection:
                        connection.sendall(b"hello")
                        connection.recv(1)
                except OSError:
                    return

        with listening() as listener:
            server = server_context(source, _OWN, refused=refused.append)
            hear = asyncio.to_thread(heard, listener, server)
            got, _ = await asyncio.gather(hear, asyncio.to_thread(say, listener.getsockname()[1]))
        assert got == b""
        assert [one.code for one in refused] == ["revoked", "revoked"]
