"""A node that must prove itself again: by its TPM it does so alone; a spent token is not shown a second time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from attestor.client.admin import AdminClient
from attestor.methods.node.tpm import ProverSettings, VerifierSettings
from attestor.node_agent import serve as node_agent
from attestor.server.settings import NodeMethods
from ca.errors import Malformed
from ca.runtime.process import Readiness
from fakes.identity_side import CLOCK, both, server, settings
from servers import swtpm


async def test_a_tpm_proves_its_machine_again(tmp_path: Path) -> None:
    """Real server, real node agent, real TPM in software: joined, evicted, back by itself, banned, and out."""
    maker = swtpm.Maker(tmp_path / "maker")
    state = maker.tpm(tmp_path / "tpm")
    methods = NodeMethods(tpm=VerifierSettings(roots=(maker.issuer,), pcrs={7: ()}))
    async with asyncio.timeout(60), swtpm.running(state) as tcti, server(tmp_path, node_methods=methods) as one:
        roots = one._parts.authority.bundle(CLOCK.now()).x509_authorities
        (tmp_path / "bundle.pem").write_bytes(b"".join(root.public_bytes(serialization.Encoding.PEM) for root in roots))
        attest = ProverSettings(method="tpm", tcti=tcti)
        chosen = settings(tmp_path, one.address[1], attest=attest, trust_bundle=tmp_path / "bundle.pem")
        readiness = Readiness()
        async with (
            node_agent.serve(chosen, CLOCK, readiness),
            AdminClient(chosen.admin_socket) as admin,
            AdminClient(one.admin_socket) as operator,
        ):
            await readiness.until_ready()
            (node,) = (await operator.get("/v1/nodes"))["nodes"]
            assert node["id"].startswith("tpm-")
            await operator.post(f"/v1/nodes/{node['id']}/evict")
            while (await operator.get("/v1/nodes"))["nodes"][0]["state"] != "admitted":
                await CLOCK.sleep(0.01)
            await operator.post(f"/v1/nodes/{node['id']}/ban")
            await _until(admin, "banned")


async def test_a_spent_token_is_not_shown_again(tmp_path: Path) -> None:
    """After an eviction the node agent asks for another one, and no operator is told of a copied token."""
    async with (
        asyncio.timeout(60),
        both(tmp_path) as (one, chosen),
        AdminClient(one.admin_socket) as operator,
        AdminClient(chosen.admin_socket) as admin,
    ):
        await operator.post("/v1/nodes/web-1/evict")
        await _until(admin, "put another one there")
        assert (await operator.get("/v1/risks"))["risks"] == []


@pytest.mark.parametrize("mode", [0o770, 0o707])
async def test_a_socket_is_not_put_where_others_may_write(tmp_path: Path, mode: int) -> None:
    """They could put theirs in its place, and give every process of the machine an identity of their choice."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.RaisesGroup(pytest.RaisesExc(Malformed, match="written by others"), flatten_subgroups=True):
        async with node_agent.serve(settings(tmp_path, 1), CLOCK, Readiness()):
            pass


async def _until(admin: AdminClient, words: str) -> None:
    """The node agent says that it waits for this."""
    while words not in ((await admin.get("/v1/health"))["waiting_for"] or ""):
        await CLOCK.sleep(0.01)
