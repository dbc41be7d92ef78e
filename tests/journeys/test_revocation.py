"""A leaf taken back by command: refused by our verifier, on a connection that is open and on a new one."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attestor.client.admin import AdminClient
from attestor.client.http import client_session
from attestor.client.source import X509Source
from attestor.client.tls import server_context
from ca import tls
from ca.runtime.web import Call, Route, application, listen
from ca.spiffe.match import IdPattern
from ca.spiffe.x509svid import X509Svid
from fakes.material import Material
from journeys.up import TRUST_DOMAIN, RunningUp, up

_RULES = f"""\
rules:
  - {{name: journey, when: ["unix:uid:{os.getuid()}"], spiffe_id: /team/journey, children: true}}
"""
_OWN = IdPattern.parse(f"spiffe://{TRUST_DOMAIN}/team/journey")


@asynccontextmanager
async def serving(source: X509Source) -> AsyncIterator[str]:
    """A server of ours that asks for each request whether its peer is still good."""

    async def answer(call: Call) -> dict[str, str]:
        assert call.request.transport is not None
        peer = tls.peer_of(call.request.transport.get_extra_info("ssl_object"))
        assert peer is not None
        source.still_good(peer, source.clock.now())
        return {"serial": f"{peer.serial:x}"}

    app = application([Route("GET", "/", answer, summary="Who calls")])
    async with listen(app, host="127.0.0.1", port=0, ssl=server_context(source), drain=0.1) as (host, port):
        yield f"https://{host}:{port}/"


async def written(running: RunningUp, source: X509Source) -> Material:
    """The SVID of a process that has ended, as `svid write` left it: nobody replaces it."""
    folder = running.places.state.parent / "files"
    assert (await running.sojourn("svid", "write", str(folder), "--once")).code == 0
    chain = x509.load_pem_x509_certificates((folder / "current" / "svid.pem").read_bytes())
    key = load_pem_private_key(Path(folder / "current" / "key.pem").read_bytes(), None)
    return Material(X509Svid.of(chain, key), source.bundles, source.clock)  # type: ignore[arg-type]


async def until_named(source: X509Source, serial: int) -> None:
    """Until a list says so."""
    async for _ in source.changed():
        if any(serial in one.serials for one in source.revocations):
            return


async def test_a_leaf_revoked_by_command_is_refused_on_an_open_connection_and_on_a_new_one() -> None:
    """The connection was opened before; the dry run changes nothing."""
    async with up(rules=_RULES) as running, X509Source.open(running.workload_api) as source, serving(source) as url:
        client = await written(running, source)
        leaf = client.svid.chain[0]
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        order = ("svid", "revoke", "--serial", f"{leaf.serial_number:x}", "--issuer", (issuer or b"").hex(), "--json")
        async with client_session(client, _OWN) as session:
            assert (await session.get(url)).status == 200
            dry = json.loads((await running.sojourn(*order, "--dry-run")).out)
            assert (await session.get(url)).status == 200
            done = json.loads((await running.sojourn(*order)).out)
            assert {**dry, "dry_run": False} == done
            assert (done["leaf_count"], done["instance_count"]) == (1, 0)
            await until_named(source, leaf.serial_number)
            async with session.get(url) as refused:
                assert refused.status == 401
                assert (await refused.json())["code"] == "revoked"
        assert await is_refused(client, url)


async def is_refused(client: Material, url: str) -> bool:
    """Whether a new connection is closed without an answer."""
    try:
        async with client_session(client, _OWN) as session, session.get(url):
            return False
    except aiohttp.ClientError:
        return True


async def test_the_node_agent_replaces_a_leaf_that_was_revoked() -> None:
    """Its process lives and is the same instance; the operators' socket says which list tells of it."""
    async with up(rules=_RULES) as running, X509Source.open(running.workload_api) as source:
        before = source.svid
        issuer = before.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        named = {"issuer_key_id": (issuer or b"").hex(), "serial": f"{before.chain[0].serial_number:x}"}
        async with running.admin() as admin:
            was = await number(admin, named["issuer_key_id"])
            assert (await admin.post("/v1/revocations", {"leaf": named}))["leaf_count"] == 1
            async for _ in source.changed():
                if source.svids and source.svid.chain[0] != before.chain[0]:
                    break
            assert await number(admin, named["issuer_key_id"]) > was
        assert source.svid.instance == before.instance


async def number(admin: AdminClient, issuer: str) -> int:
    """Of the newest list of an authority."""
    lists = (await admin.get("/v1/revocation-lists"))["lists"]
    return max(int(one["number"]) for one in lists if one["issuer_key_id"] == issuer)


async def test_what_lives_below_a_path_ends_by_one_order() -> None:
    """This very process too: its identity is withdrawn, and whoever it was is believed no more."""
    async with up(rules=_RULES) as running, X509Source.open(running.workload_api) as source, serving(source) as url:
        client = await written(running, source)
        order = ("svid", "revoke", "--under", "/team")
        assert "would end" in (await running.sojourn(*order, "--dry-run")).out
        done = await running.sojourn(*order)
        assert (done.code, done.out.count("/team/journey")) == (0, 2), done
        async for _ in source.changed():
            if not source.svids:
                break
        assert await is_refused(client, url)
        again = await running.sojourn(*order, "--json")
        assert json.loads(again.out)["leaf_count"] == 0


async def test_an_order_that_is_none() -> None:
    """Two wishes at once, half a name, nobody of that name: a sentence, and nothing happens."""
    async with up(rules=_RULES) as running:
        for wrong, code in (
            ((), 2),
            (("--serial", "1"), 2),
            (("--node", "a", "--under", "/b"), 2),
            (("--node", "nobody"), 1),
            (("--under", "/"), 1),
            (("--under", "no-slash"), 1),
            (("--instance", "x"), 1),
            (("--serial", "xyz", "--issuer", "00"), 1),
        ):
            found = await running.sojourn("svid", "revoke", *wrong)
            assert (found.code, found.out) == (code, ""), (wrong, found)
