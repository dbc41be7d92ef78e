"""A node agent that proves itself by what its platform gave it, against a real server and a real cluster's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from attestor.client.admin import AdminClient
from attestor.methods.node.k8s_psat import ProverSettings, VerifierSettings
from attestor.methods.platform.cluster import ClusterSettings
from attestor.node_agent import serve as node_agent
from attestor.node_agent.joining import ByMethod
from attestor.node_agent.settings import NodeAgentSettings
from attestor.server.serve import Server
from attestor.server.settings import NodeMethods
from attestor.wire.trust_bundle import LARGEST, read_bundle
from ca.errors import Malformed, Unavailable
from ca.runtime.document import BadSettings
from ca.runtime.process import Readiness
from ca.runtime.settings import loads
from fakes import clusters
from fakes.identity_side import CLOCK, DOMAIN, server, settings
from fakes.kubernetes import FakeCluster, cluster


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[FakeCluster, Server]]:
    """A server that admits node agents of the cluster `prod`; its bundle lies beside it in `bundle.pem`."""
    folder.mkdir(exist_ok=True)
    async with cluster(folder / "prod") as api:
        known = ClusterSettings(name="prod", api=api.settings, node_agents=("/".join(clusters.AGENT),))
        methods = NodeMethods(k8s_psat=VerifierSettings())
        async with server(folder, clusters=(known,), node_methods=methods) as one:
            (folder / "bundle.pem").write_bytes(pem(one))
            yield api, one


def pem(one: Server) -> bytes:
    """The roots of a server."""
    bundle = one._parts.authority.bundle(CLOCK.now())
    return b"".join(root.public_bytes(serialization.Encoding.PEM) for root in bundle.x509_authorities)


def in_a_pod(folder: Path, api: FakeCluster, one: Server, **changes: Any) -> NodeAgentSettings:
    """A node agent of the DaemonSet on `worker-1`."""
    (folder / "token").write_text(api.token(clusters.node_agent(api, "worker-1"), [clusters.NODE_AUDIENCE]))
    attest = ProverSettings(method="k8s_psat", cluster="prod", token_file=folder / "token")
    return settings(folder, one.address[1]).model_copy(update={"attest": attest, **changes})


async def until(admin: AdminClient, words: str) -> None:
    """The node agent says that it waits for this."""
    while words not in ((await admin.get("/v1/health"))["waiting_for"] or ""):
        await CLOCK.sleep(0.01)


@pytest.mark.parametrize("known_by", ["trust_bundle", "root_key_hash"])
async def test_it_needs_nobody_to_join(tmp_path: Path, known_by: str) -> None:
    """And after an eviction it proves itself again by itself; banned it stays out."""
    async with asyncio.timeout(60), serving(tmp_path) as (api, one):
        trust = {"trust_bundle": tmp_path / "bundle.pem", "root_key_hash": one.root_key_hash}
        chosen, readiness = in_a_pod(tmp_path, api, one, **{known_by: trust[known_by]}), Readiness()
        uid = api.nodes["worker-1"]["metadata"]["uid"]
        async with (
            node_agent.serve(chosen, CLOCK, readiness),
            AdminClient(chosen.admin_socket) as admin,
            AdminClient(one.admin_socket) as operator,
        ):
            await readiness.until_ready()
            health = await admin.get("/v1/health")
            assert health["spiffe_id"] == f"spiffe://example.org/sojourn/node/prod-{uid}"
            reviews = len(api.requests)
            await operator.post(f"/v1/nodes/prod-{uid}/evict", {})
            while len(api.requests) == reviews or not readiness.is_ready:
                await CLOCK.sleep(0.01)
            (node,) = (await operator.get("/v1/nodes"))["nodes"]
            assert node["state"] == "admitted"
            await operator.post(f"/v1/nodes/prod-{uid}/ban", {})
            await until(admin, "banned")


async def test_no_proof_is_shown_to_an_impostor(tmp_path: Path) -> None:
    """Traps 10: same trust domain, same name, another root. The impostor would have the token reviewed."""
    async with (
        asyncio.timeout(60),
        serving(tmp_path / "right") as (api, _),
        serving(tmp_path / "impostor") as (other, impostor),
    ):
        chosen = in_a_pod(tmp_path, api, impostor, trust_bundle=tmp_path / "right" / "bundle.pem")
        async with node_agent.serve(chosen, CLOCK, Readiness()), AdminClient(chosen.admin_socket) as admin:
            await until(admin, "reach the attestor server")
        posts = [one for one in (*api.requests, *other.requests) if one[0] == "POST"]
        assert posts == []


async def test_a_bundle_may_come_late(tmp_path: Path) -> None:
    """A mounted ConfigMap that is not there yet is waited for; junk is not trusted."""
    async with asyncio.timeout(60), serving(tmp_path) as (api, one):
        bundle, readiness = tmp_path / "mounted.pem", Readiness()
        chosen = in_a_pod(tmp_path, api, one, trust_bundle=bundle)
        async with node_agent.serve(chosen, CLOCK, readiness), AdminClient(chosen.admin_socket) as admin:
            await until(admin, "can't be read")
            bundle.write_text("junk")
            await until(admin, "neither PEM")
            bundle.write_bytes(pem(one))
            await readiness.until_ready()


def test_a_bundle_is_pem_or_a_jwk_set(tmp_path: Path) -> None:
    """Anything else is none."""
    path = tmp_path / "bundle"
    for content in (
        b"",
        b"{",
        b"{}",
        b'{"keys": []}',
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        path.write_bytes(content)
        with pytest.raises(Unavailable):
            read_bundle(path, DOMAIN)
    path.write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(Unavailable):
        read_bundle(path, DOMAIN)


async def test_a_bundle_of_the_spiffe_form_is_taken(tmp_path: Path) -> None:
    """As the server publishes it."""
    async with server(tmp_path) as one:
        bundle = one._parts.authority.bundle(CLOCK.now())
        (tmp_path / "bundle.json").write_bytes(bundle.to_jwks())
        assert read_bundle(tmp_path / "bundle.json", DOMAIN).x509_authorities == bundle.x509_authorities


@pytest.mark.parametrize(
    "text",
    [
        "attest: {method: k8s_psat, cluster: a}",
        "attest: {method: password}\ntrust_bundle: /b",
        "attest: {method: k8s_psat, cluster: a}\ntrust_bundle: /b\njoin_token: file:/t",
        "root_key_hash: abc",
        "attest: {method: oidc, issuer: a}\ntrust_bundle: /b",
    ],
)
def test_settings_that_would_show_the_proof_to_anybody_are_refused(text: str) -> None:
    """Or that can't be meant."""
    whole = f"trust_domain: example.org\nstate: /s\nworkload_socket: /w\nadmin_socket: /a\n{text}"
    with pytest.raises(BadSettings):
        loads(whole, "node-agent.yaml", NodeAgentSettings)
    with pytest.raises(Malformed, match="must be known"):
        ByMethod("x", lambda _: None, trust_bundle=None, root_key_hash=None)  # type: ignore[arg-type, return-value]
