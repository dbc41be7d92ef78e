"""A real attestor server, a real node agent and a real Envoy: mTLS, short lives, a leaf taken back by command.

The command is `sojourn svid revoke`; Envoy refuses the leaf on a new connection. The node agent's SPIFFE Broker API is
asked for the identity of that Envoy, which never called it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from grpclib.const import Status

from attestor.client.admin import AdminClient
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.settings import EnvoySettings, NodeAgentSettings, SpiffeBrokerApiSettings
from attestor.server.serve import Server
from attestor.wire.spiffe_broker import ProcessReference
from ca.runtime.secret import Secret
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial
from fakes.broker_api import X509, call_at, ends, heard
from fakes.identity_side import address, agent, server
from fakes.tls_ends import End
from journeys.envoys import TAKEN_IN, TAKEN_OUT, knock, service, traffic
from journeys.processes import short_folder, sojourn
from servers.envoy import Envoy, Sidecar, bootstrap, envoy

WEB, ORDERS = "spiffe://example.org/web", "spiffe://example.org/orders"
CONNECTED = "sds.ALL.control_plane.connected_state"
NODE = "spiffe://example.org/sojourn/node/web-1"
GATEWAYS = 4711
"""A group nobody is in."""
RULES = """
rules:
  - {name: web, nodes: [node:name:web-1], when: [unix:uid:0], spiffe_id: /web, children: true}
  - {name: orders, nodes: [node:name:web-1], when: [unix:uid:0], spiffe_id: /orders, children: true}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With room for a socket's name."""
    with short_folder() as one:
        (one / "rules.yaml").write_text(RULES)
        yield one


@asynccontextmanager
async def node(
    folder: Path, ttl: timedelta = timedelta(hours=1), *, lists: bool = False
) -> AsyncIterator[tuple[Server, NodeAgentSettings]]:
    """Server and node agent; `lists` go to Envoy when wanted, and `/web` may use the Broker API."""
    broker = SpiffeBrokerApiSettings.model_validate(
        {
            "endpoint": f"unix://{folder}/broker.sock",
            "group": GATEWAYS,
            "allow": ({"spiffe_id": WEB, "references": ("pid",)},),
        }
    )
    async with server(folder, lives={"x509": ttl}) as one:
        token = Secret((await one.issue_token("web-1")).reveal())
        changes = {"envoy": EnvoySettings(revocation_lists=lists), "spiffe_broker_api": broker}
        async with agent(folder, one.address[1], token, **changes) as chosen:
            yield one, chosen


@asynccontextmanager
async def orders(chosen: NodeAgentSettings, folder: Path) -> AsyncIterator[Envoy]:
    """The Envoy of `/orders`, which lets in `/web`."""
    async with service() as port:
        sidecar = Sidecar(socket=chosen.workload_socket, service=port, own=ORDERS, lets_in=WEB)
        async with envoy(bootstrap(sidecar), folder) as running:
            yield running


async def web(chosen: NodeAgentSettings) -> tuple[X509Svid, BundleSet]:
    """A certificate of this very process, and whom it trusts."""
    async with WorkloadApiClient(address(chosen)) as client:
        found = await client.fetch_x509()
    return next(svid for svid in found.svids if str(svid.id) == WEB), found.bundles


def serial_and_issuer(svid: X509Svid) -> tuple[str, str]:
    """As the command wants them."""
    leaf = svid.chain[0]
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return f"{leaf.serial_number:x}", (issuer or b"").hex()


async def test_a_leaf_revoked_by_command_is_refused_by_envoy(folder: Path) -> None:
    """On a new connection, as soon as the list is there; a fresh leaf of the same process is let in."""
    async with node(folder, lists=True) as (one, chosen), orders(chosen, folder) as running:
        svid, bundles = await web(chosen)
        assert WEB in (await knock(running, bundles, svid) or "")
        at = await running.counter(TAKEN_IN)
        serial, issuer = serial_and_issuer(svid)
        order = ("svid", "revoke", "--serial", serial, "--issuer", issuer, "--socket", str(one.admin_socket))
        done = await sojourn(*order, folder=folder)
        assert done.code == 0, done.err
        await running.reaches(TAKEN_IN, at + 1)
        assert await knock(running, bundles, svid) is None
        fresh, bundles = await web(chosen)
        assert serial_and_issuer(fresh) != (serial, issuer)
        assert WEB in (await knock(running, bundles, fresh) or "")


async def test_ten_rotations_of_the_authority_lose_no_request(folder: Path) -> None:
    """By an operator's word: another key signs, and what the old one signed is replaced at once."""
    async with node(folder) as (one, chosen), orders(chosen, folder) as server_side:
        peer = await server_side.port("inbound")
        sidecar = Sidecar(socket=chosen.workload_socket, peer=peer, own=WEB, calls=ORDERS)
        async with (
            envoy(bootstrap(sidecar), folder, "web") as client,
            AdminClient(one.admin_socket) as admin,
            traffic(client) as seen,
        ):
            for _ in range(10):
                before, at = await client.counter(TAKEN_OUT), await server_side.counter(TAKEN_IN)
                done = await admin.post("/v1/authorities/rotate", {"kind": "issuing", "at_once": True})
                (old,) = [each["key_id"] for each in done["changes"] if each["after"] == "old"]
                await admin.post(f"/v1/authorities/{old}/taint", {})
                await client.reaches(TAKEN_OUT, before + 1)
                await server_side.reaches(TAKEN_IN, at + 1)
                await seen.more(10)
        assert {(status, WEB in text) for status, text in seen.answers} == {(200, True)}


async def test_envoy_goes_on_while_the_node_agent_is_away(folder: Path) -> None:
    """It keeps its secrets, comes back by itself, and then hears of changes again; no request is lost."""
    async with (
        server(folder) as one,
        service() as port,
        AdminClient(one.admin_socket) as admin,
        AsyncExitStack() as envoys,
    ):
        token = Secret((await one.issue_token("web-1")).reveal())
        async with agent(folder, one.address[1], token) as chosen:
            sidecar = Sidecar(socket=chosen.workload_socket, service=port, own=ORDERS, lets_in=WEB)
            back = await envoys.enter_async_context(envoy(bootstrap(sidecar), folder, "orders"))
            sidecar = Sidecar(socket=chosen.workload_socket, peer=await back.port("inbound"), own=WEB, calls=ORDERS)
            front = await envoys.enter_async_context(envoy(bootstrap(sidecar), folder, "web"))
        async with traffic(front) as seen:
            await seen.more(50)
            async with agent(folder, one.address[1]):
                await back.reaches(CONNECTED, 1)
                at = await back.counter(TAKEN_IN)
                done = await admin.post("/v1/authorities/rotate", {"kind": "issuing", "at_once": True})
                (old,) = [each["key_id"] for each in done["changes"] if each["after"] == "old"]
                await admin.post(f"/v1/authorities/{old}/taint", {})
                await back.reaches(TAKEN_IN, at + 1)
                await seen.more(20)
        assert {(status, WEB in text) for status, text in seen.answers} == {(200, True)}


async def test_envoy_follows_short_lives(folder: Path) -> None:
    """Certificates of six seconds: after three renewals there is still one that holds."""
    async with node(folder, timedelta(seconds=6)) as (_, chosen), orders(chosen, folder) as running:
        await running.reaches(TAKEN_IN, await running.counter(TAKEN_IN) + 3)
        svid, bundles = await web(chosen)
        assert WEB in (await knock(running, bundles, svid) or "")


async def test_a_gateway_has_the_identities_of_a_process_until_it_ends(folder: Path) -> None:
    """The SPIFFE Broker API of a real node agent, which proves itself as this node."""
    async with node(folder) as (_, chosen):
        svid, bundles = await web(chosen)
        caller = End(TlsMaterial.of(svid, bundles), bundles)
        socket = (folder / "broker.sock").stat()
        assert (socket.st_gid, socket.st_mode & 0o777) == (GATEWAYS, 0o660)
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1)
        async with call_at(folder / "broker.sock", caller, X509, ProcessReference(process.pid)) as stream:
            found = {one.spiffe_id: one for one in (await heard(stream)).svids}
            assert found.keys() == {WEB, ORDERS}
            other = X509Svid.parse(found[WEB].x509_svid, found[WEB].x509_svid_key)
            assert other.instance != svid.instance
            process.kill()
            assert await ends(stream) == (Status.NOT_FOUND, "WORKLOAD_NOT_FOUND")
        await process.wait()
        assert [str(peer.id) for peer in caller.met] == [NODE]
