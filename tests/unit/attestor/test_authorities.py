"""An operator's word about a key reaches every stream: node agent, workload, bundle, leaf and cached token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestor.client.admin import AdminClient
from attestor.client.source import JwtSource, X509Source
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.identity import IdentityFile
from attestor.node_agent.settings import NodeAgentSettings
from attestor.server.serve import Server
from attestor.server.settings import Lives
from ca.errors import Conflict, Malformed, NotFound, Unavailable
from ca.spiffe import der, jwtsvid, x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from fakes.identity_side import CLOCK, DOMAIN, address, both

AT_ONCE = {"lives": Lives(propagation=timedelta(0))}


@asynccontextmanager
async def ordered(folder: Path) -> AsyncIterator[tuple[Server, NodeAgentSettings, AdminClient]]:
    """A server that waits for nobody, a node agent, and an operator."""
    async with both(folder, **AT_ONCE) as (server, agent), AdminClient(server.admin_socket) as admin:
        yield server, agent, admin


def holding(agent: NodeAgentSettings) -> AbstractAsyncContextManager[X509Source]:
    """A workload's own view."""
    return X509Source.open(address(agent))


async def shown(admin: AdminClient, kind: str, state: str) -> list[str]:
    """Key ids of those of this kind in this state."""
    found = await admin.get("/v1/authorities")
    return [one["key_id"] for one in found["authorities"] if (one["kind"], one["state"]) == (kind, state)]


async def order(admin: AdminClient, key_id: str, verb: str, **body: Any) -> Any:
    """Taint or revoke."""
    return await admin.post(f"/v1/authorities/{key_id}/{verb}", body)


def own(bundles: BundleSet) -> Bundle:
    """That of our trust domain."""
    found = bundles.get(DOMAIN)
    assert found is not None
    return found


def roots(bundles: BundleSet) -> set[str]:
    """Key ids of the roots in it."""
    return {der.key_id_of(each).hex() for each in own(bundles).x509_authorities}


async def until(source: X509Source, condition: Any) -> None:
    """Until what the source holds fulfils it."""
    async for _ in source.changed():
        if condition():
            return


def verifies(source: X509Source) -> bool:
    """Whether what it holds is believed under the bundle it holds."""
    x509svid.verify([each.public_bytes(Encoding.DER) for each in source.svid.chain], source.bundles, CLOCK.now())
    return True


async def test_a_root_is_rotated_tainted_and_revoked_under_a_workloads_eyes(tmp_path: Path) -> None:
    """Each step arrives on the stream it holds, and at each moment its leaf verifies under its own bundle."""
    async with asyncio.timeout(60), ordered(tmp_path) as (server, agent, admin), holding(agent) as source:
        (old,) = roots(source.bundles)
        issuing = authority(source)
        always: list[bool] = []
        source.subscribe(lambda: always.append(verifies(source)))

        planned = await admin.post("/v1/authorities/rotate", {"kind": "root", "dry_run": True})
        assert {one["after"] for one in planned["changes"]} == {"old"}
        assert planned["x509_svids"] >= 2  # the issuing authority, the server's own leaf, the node's, the workload's
        await admin.post("/v1/authorities/rotate", {"kind": "root"})
        await until(source, lambda: len(roots(source.bundles)) == 2)

        told = await order(admin, old, "taint")
        assert {(one["kind"], one["before"], one["after"]) for one in told["changes"]} == {
            ("root", "old", "tainted"),
            ("issuing", "old", "tainted"),
        }
        await until(source, lambda: authority(source) != issuing)
        assert old in roots(source.bundles)

        told = await order(admin, old, "revoke")
        assert told["leaves_bundle"] == [old]
        await until(source, lambda: old not in roots(source.bundles))
        assert len(always) >= 3
        assert verifies(source)
        token = await server.issue_token("web-2")  # the server's own certificate is the new root's as well
        assert token.root_key_hash == server.root_key_hash


def authority(source: X509Source) -> bytes | None:
    """Who signed the leaf it holds."""
    extension = source.svid.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return extension.value.key_identifier


async def test_the_node_itself_survives_the_end_of_its_root(tmp_path: Path) -> None:
    """It has a new certificate before the old one is refused, so it needs no new join token."""
    async with asyncio.timeout(60), ordered(tmp_path) as (_, agent, admin), WorkloadApiClient(address(agent)) as api:
        file = IdentityFile(agent.state / "identity.json", DOMAIN)

        def signer() -> bytes:
            identity = file.load(CLOCK.now())
            return identity.authority if identity is not None else b""

        (old,) = await shown(admin, "root", "active")
        await admin.post("/v1/authorities/rotate", {"kind": "root"})
        before = signer()
        await order(admin, old, "taint")
        while signer() == before:
            await CLOCK.sleep(0.05)
        await order(admin, old, "revoke")
        while True:
            with suppress(Unavailable):  # the link is made anew with the new certificate
                await api.fetch_jwt(["orders"])
                break
            await CLOCK.sleep(0.05)


async def test_a_cached_token_of_a_tainted_key_is_not_given_again(tmp_path: Path) -> None:
    """The next one asked for is of the new key, at once."""
    async with asyncio.timeout(60), ordered(tmp_path) as (_, agent, admin), WorkloadApiClient(address(agent)) as api:
        (first,) = await api.fetch_jwt(["orders"])
        assert (await api.fetch_jwt(["orders"]))[0].token == first.token
        (old,) = await shown(admin, "jwt", "active")
        await admin.post("/v1/authorities/rotate", {"kind": "jwt", "at_once": True})
        await order(admin, old, "taint")
        while (await api.fetch_jwt(["orders"]))[0].token == first.token:
            await CLOCK.sleep(0.01)
        await order(admin, old, "revoke")
        while old in own(bundles := await api.fetch_jwt_bundles()).jwt_authorities:  # it is on its way to the node
            await CLOCK.sleep(0.01)
        with pytest.raises(jwtsvid.Untrusted):
            jwtsvid.verify(first.token, "orders", bundles, CLOCK.now())


async def test_a_client_that_keeps_tokens_drops_those_of_a_revoked_key(tmp_path: Path) -> None:
    """As soon as its bundle says so."""
    async with asyncio.timeout(60), ordered(tmp_path) as (_, agent, admin), JwtSource.open(address(agent)) as source:
        first = await source.fetch(["orders"])
        assert await source.fetch(["orders"]) is first
        (old,) = await shown(admin, "jwt", "active")
        await admin.post("/v1/authorities/rotate", {"kind": "jwt"})
        await order(admin, old, "taint")
        await order(admin, old, "revoke")
        while old in own(source.bundles).jwt_authorities:
            await CLOCK.sleep(0.01)
        assert (await source.fetch(["orders"])).token != first.token


async def test_a_dry_run_does_nothing_and_mistakes_are_said(tmp_path: Path) -> None:
    """States are the same afterwards; each refusal names what would do."""
    async with asyncio.timeout(60), both(tmp_path) as (server, _), AdminClient(server.admin_socket) as admin:
        before = await admin.get("/v1/authorities")
        for kind in ("root", "issuing", "jwt", "wit"):
            told = await admin.post("/v1/authorities/rotate", {"kind": kind, "dry_run": True})
            assert told["dry_run"]
            assert told["changes"]
        (root,) = await shown(admin, "root", "active")
        for key_id, verb, problem, words in (
            (root, "taint", Conflict, "signs at the moment: rotate it first"),
            (root, "revoke", Conflict, "expected `tainted`"),
            ("00" * 20, "taint", NotFound, "no authority"),
            ("XX", "taint", Malformed, "lower-case hexadecimal"),
            (root.upper(), "taint", Malformed, "lower-case hexadecimal"),
        ):
            with pytest.raises(problem, match=words):
                await order(admin, key_id, verb, dry_run=True)
        with pytest.raises(Malformed):
            await admin.post("/v1/authorities/rotate", {"kind": "leaf"})
        assert await admin.get("/v1/authorities") == before
