"""A real node agent against a real attestor server, over TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509 import AuthorityKeyIdentifier

from attestor.client.admin import AdminClient
from attestor.client.errors import NoIdentity
from attestor.client.source import JwtSource, X509Source
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent import serve as node_agent
from attestor.node_agent.settings import NodeAgentSettings
from ca.errors import Malformed, Unavailable
from ca.runtime.process import Readiness
from ca.runtime.secret import Secret
from ca.spiffe import proof
from fakes.identity_side import CLOCK, RULES, address, agent, both, server, settings


async def fetched_instance(chosen: NodeAgentSettings) -> str:
    """The instance of this very process."""
    async with WorkloadApiClient(address(chosen)) as client:
        return str((await client.fetch_x509()).svids[0].instance)


async def test_a_process_gets_its_identity_end_to_end(tmp_path: Path) -> None:
    """Joined by token, attested, entitled by a rule, signed by the authority, verified by the source."""
    async with both(tmp_path) as (_, chosen), X509Source.open(address(chosen), CLOCK) as source:
        assert str(source.svid.id) == "spiffe://example.org/agent"
        assert source.svid.instance
        async with JwtSource.open(address(chosen), CLOCK) as tokens:
            token = await tokens.fetch(["broker"])
            assert token.id == source.svid.id
            assert await tokens.fetch(["broker"]) is token


async def test_operators_see_what_is_held_and_why(tmp_path: Path) -> None:
    """Held processes, an explained pid, and how the node agent stands."""
    async with both(tmp_path) as (_, chosen), AdminClient(chosen.admin_socket) as admin:
        instance = await fetched_instance(chosen)
        (held,) = (await admin.get("/v1/held"))["held"]
        assert (held["instance"], held["pid"], held["strength"]) == (instance, os.getpid(), "shared-uid")
        explained = await admin.post("/v1/explain", {"pid": os.getpid()})
        assert explained["identities"][0]["spiffe_id"] == "spiffe://example.org/agent"
        assert "unix:uid:0" in explained["selectors"]
        assert (await admin.get("/v1/health"))["spiffe_id"] == "spiffe://example.org/sojourn/node/web-1"


async def test_a_changed_rule_reaches_an_open_stream(tmp_path: Path) -> None:
    """Pushed to the node agent, resolved again, and the stream ends with PermissionDenied when nothing is left."""
    async with (
        both(tmp_path) as (_, chosen),
        WorkloadApiClient(address(chosen)) as client,
        aclosing(client.watch_x509()) as updates,
        asyncio.timeout(60),
    ):
        await anext(updates)
        (tmp_path / "rules.yaml").write_text(RULES.replace("/agent\n", "/other\n"))
        assert (await anext(updates)).svids[0].id.path == "/other"
        (tmp_path / "rules.yaml").write_text("rules: []")
        with pytest.raises(NoIdentity):
            await anext(updates)


async def test_a_killed_process_ends_its_instance(tmp_path: Path) -> None:
    """From the pidfd to the server's word for it."""
    script = (
        "import asyncio, sys\n"
        "from attestor.client.source import X509Source\n"
        "async def main():\n"
        "    async with X509Source.open(sys.argv[1]) as source:\n"
        "        print(source.svid.instance, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with both(tmp_path) as (one, chosen), AdminClient(one.admin_socket) as admin:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, address(chosen), stdout=-1)
        assert process.stdout is not None
        instance = (await process.stdout.readline()).decode().strip()
        assert await _state(admin, instance) == "live"
        process.kill()
        await process.wait()
        await _until(admin, instance, "ended")


async def test_a_restart_keeps_who_lives_and_needs_no_token(tmp_path: Path) -> None:
    """Done when 5: the same instance afterwards, by the node's own SVID."""
    async with server(tmp_path) as one, AdminClient(one.admin_socket) as admin:
        token = await one.issue_token("web-1")
        async with agent(tmp_path, one.address[1], Secret(token.reveal())) as chosen:
            before = await fetched_instance(chosen)
        async with agent(tmp_path, one.address[1]) as chosen:
            assert await fetched_instance(chosen) == before
            assert await _state(admin, before) == "live"


async def test_a_source_outlives_a_restart_of_the_node_agent(tmp_path: Path) -> None:
    """It keeps its SVID, comes back by itself, and is the same instance."""
    async with server(tmp_path) as one:
        token = await one.issue_token("web-1")
        async with AsyncExitStack() as stack:
            async with agent(tmp_path, one.address[1], Secret(token.reveal())) as chosen:
                source = await stack.enter_async_context(X509Source.open(address(chosen), CLOCK))
                before = source.svid
            assert source.svid is before
            changes = source.changed()
            await anext(changes)
            async with agent(tmp_path, one.address[1]), asyncio.timeout(60):
                await anext(changes)
                assert source.svid is not before
                assert source.svid.instance == before.instance


async def test_an_evicted_node_serves_nobody(tmp_path: Path) -> None:
    """Streams end, and the node's key is forgotten."""
    async with both(tmp_path) as (one, chosen), AdminClient(one.admin_socket) as admin:
        async with WorkloadApiClient(address(chosen)) as client, aclosing(client.watch_x509()) as updates:
            await anext(updates)
            await admin.post("/v1/nodes/web-1/evict")
            with pytest.raises(NoIdentity):
                async with asyncio.timeout(60):
                    await anext(updates)
        with pytest.raises((NoIdentity, Unavailable)):
            async with WorkloadApiClient(address(chosen)) as client:
                await client.fetch_x509()
        assert not (tmp_path / "node" / "identity.json").exists()


async def test_a_token_of_another_root_is_never_shown(tmp_path: Path) -> None:
    """Traps 10: whoever stands in between sees a handshake fail; the token stays good for the right server."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with server(tmp_path / "a") as right, server(tmp_path / "b") as impostor:
        token = await right.issue_token("web-1")
        readiness, chosen = Readiness(), settings(tmp_path, impostor.address[1])
        async with (
            node_agent.serve(chosen, CLOCK, readiness, join_token=Secret(token.reveal())),
            AdminClient(chosen.admin_socket) as admin,
            asyncio.timeout(60),
        ):
            while "not the one that is expected" not in (await admin.get("/v1/health"))["waiting_for"]:
                await CLOCK.sleep(0.01)
        async with agent(tmp_path, right.address[1], Secret(token.reveal())):
            pass


async def test_the_nodes_own_svid_is_renewed(tmp_path: Path) -> None:
    """At half its life, without a token, and the link goes on with the new one."""
    async with (
        both(tmp_path, lives={"node": timedelta(seconds=6)}) as (_, chosen),
        AdminClient(chosen.admin_socket) as admin,
        asyncio.timeout(60),
    ):
        before = health = await admin.get("/v1/health")
        while health["expires_at"] == before["expires_at"] or not health["ready"]:
            health = await admin.get("/v1/health")
            await CLOCK.sleep(0.05)


async def test_a_node_agent_without_server_says_so(tmp_path: Path) -> None:
    """Its sockets answer, the Workload API with Unavailable, and readiness names what it waits for."""
    readiness, chosen = Readiness(), settings(tmp_path, 1)
    async with node_agent.serve(chosen, CLOCK, readiness):
        async with WorkloadApiClient(address(chosen)) as client:
            with pytest.raises(Unavailable, match="has not heard from the attestor server"):
                await client.fetch_x509()
        assert not readiness.is_ready


async def _state(admin: AdminClient, instance: str) -> str:
    found = [one for one in (await admin.get("/v1/instances"))["instances"] if one["instance"] == instance]
    return str(found[0]["state"]) if found else ""


async def _until(admin: AdminClient, instance: str, state: str) -> None:
    async with asyncio.timeout(60):
        while await _state(admin, instance) != state:
            await CLOCK.sleep(0.01)


async def test_a_wit_svid_end_to_end(tmp_path: Path) -> None:
    """Its key made by the node agent, named by the server, proven to a peer that has nothing but the WIT bundles."""
    async with both(tmp_path) as (_, chosen), WorkloadApiClient(address(chosen)) as client:
        (svid,) = await client.fetch_wit()
        bundles, now = await client.fetch_wit_bundles(), CLOCK.now()
        shown = proof.mint(svid, "https://orders.example.org", now)
        audiences = ["https://orders.example.org"]
        peer = proof.verify(svid.token, shown, audiences=audiences, bundles=bundles, now=now, seen=proof.ReplayCache())
        assert str(peer.id) == "spiffe://example.org/agent"


async def test_a_leaf_taken_back_is_replaced_on_its_stream(tmp_path: Path) -> None:
    """By an operator's word for that one leaf: the process gets another at once and stays the instance it was."""
    async with (
        both(tmp_path) as (one, chosen),
        AdminClient(one.admin_socket) as admin,
        WorkloadApiClient(address(chosen)) as client,
        aclosing(client.watch_x509()) as updates,
        asyncio.timeout(60),
    ):
        first = (await anext(updates)).svids[0]
        named = first.chain[0].extensions.get_extension_for_class(AuthorityKeyIdentifier).value.key_identifier
        leaf = {"issuer_key_id": named.hex() if named else "", "serial": f"{first.chain[0].serial_number:x}"}
        assert (await admin.post("/v1/revocations", {"leaf": leaf}))["leaf_count"] == 1
        second = first
        while second.chain[0].serial_number == first.chain[0].serial_number:  # the list itself may be told before
            second = (await anext(updates)).svids[0]
        assert second.instance == first.instance


async def test_a_socket_s_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """A file there is somebody's: it stays, the node agent says so, and what a dead one left is replaced."""
    chosen = settings(tmp_path, 1)
    chosen.workload_socket.parent.mkdir()
    chosen.workload_socket.write_text("mine")
    refusal = pytest.RaisesExc(Malformed, match="something else is there")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with node_agent.serve(chosen, CLOCK, Readiness()):
            pass
    assert chosen.workload_socket.read_text() == "mine"
    chosen.workload_socket.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(chosen.workload_socket))
    async with node_agent.serve(chosen, CLOCK, Readiness()), WorkloadApiClient(address(chosen)) as client:
        with pytest.raises(Unavailable):
            await client.fetch_x509()
