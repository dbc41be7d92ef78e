"""kill -9 of the attestor server after something was taken back and before a list says so: the next start signs it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from attestor._proto import node_pb2 as pb
from attestor.client.admin import AdminClient
from attestor.client.errors import Unreachable
from attestor.methods.node.join_token import JoinToken
from attestor.wire import node as wire
from attestor.wire.node import LiveSet
from ca.runtime.clock import SystemClock
from ca.spiffe import der
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.revocation_list import RevocationList
from ca.spiffe.x509svid import X509Peer, verify
from fakes.attestor_parts import SPKI, attestation, wants
from fakes.node_client import Hearing, as_node, ask, attest, following, until
from journeys.processes import SOJOURN, Running, short_folder, started

RULES = """\
rules:
  - {name: agent, nodes: ["node:name:n"], when: ["unix:uid:7"], spiffe_id: /agent, bind: process}
"""


def configured(folder: Path) -> Path:
    """A server whose keys and store outlive it."""
    (folder / "rules.yaml").write_text(RULES)
    (folder / "seal").write_text(secrets.token_hex(32))
    (folder / "seal").chmod(0o600)
    content = {
        "trust_domain": "example.org",
        "listen": {"port": 0},
        "admin_socket": str(folder / "admin.sock"),
        "database": f"sqlite:{folder / 'server.db'}",
        "keys": {"store": "disk", "folder": str(folder / "keys"), "seal": f"file:{folder / 'seal'}"},
        "rules": [str(folder / "rules.yaml")],
    }
    (folder / "server.yaml").write_text(json.dumps(content))
    return folder / "server.yaml"


@asynccontextmanager
async def server(folder: Path, **environment: str) -> AsyncIterator[tuple[Running, tuple[str, int]]]:
    """The command, and where it answers node agents."""
    command = (SOJOURN, "server", "--config", str(folder / "server.yaml"))
    async with started(*command, folder=folder, name="server", environment={**os.environ, **environment}) as running:
        line = await running.line("answers node agents at")
        yield running, ("127.0.0.1", int(line.rpartition(":")[2]))


async def joined(folder: Path, address: tuple[str, int]) -> wire.Admission:
    """A node, by a token of the operators' socket."""
    async with AdminClient(folder / "admin.sock") as admin:
        token = JoinToken.parse((await admin.post("/v1/tokens", {"node": "n"}))["token"])
    return await attest(address, token)


async def a_leaf(address: tuple[str, int], admitted: wire.Admission) -> X509Peer:
    """Given to a process that the node reports."""
    of = attestation("unix:uid:7")
    async with as_node(address, admitted) as node, following(node) as stream:
        await stream.send_message(wire.encode_live(LiveSet(counter=1, instances=frozenset({of.instance}))))
        await until(stream, Hearing(), lambda _: True)
        asked = wire.encode_sign([wants("/agent", of, SPKI)])
        (signed,) = wire.decode_signed(await ask(node, wire.SIGN, asked, pb.SignResponse))
    assert isinstance(signed, wire.Signed)
    bundle = Bundle.from_jwks(admitted.bundle.trust_domain, admitted.bundle.document)
    return verify(der.split(signed.chain, "a chain", 8), BundleSet.of(bundle), SystemClock().now())


async def revoke(folder: Path, instance: str) -> Mapping[str, object]:
    """An operator's word; the server may be killed before it has answered."""
    async with AdminClient(folder / "admin.sock") as admin:
        with suppress(Unreachable):
            found: Mapping[str, object] = await admin.post("/v1/revocations", {"instance": instance})
            return found
    return {}


@pytest.mark.parametrize("point", ["revocation.claim.before", "revocation.keep.before"])
async def test_the_next_start_signs_the_list(point: str) -> None:
    """Killed before it looked what to list, and killed with a list in hand that nobody got."""
    with short_folder() as folder:
        configured(folder)
        marker = folder / "fired"
        armed = {"SOJOURN_FAILPOINTS": f"{point}=kill@3", "SOJOURN_FAILPOINT_MARKER": str(marker)}
        async with server(folder, **armed) as (running, address):  # twice for the empty lists of the start
            admitted = await joined(folder, address)
            peer = await a_leaf(address, admitted)
            await revoke(folder, peer.instance or "")
            assert await running.ended() == -9
        assert marker.read_text().split() == [point]
        async with server(folder) as (running, address):
            async with as_node(address, admitted) as node, following(node) as stream:
                first = await until(stream, Hearing(), lambda _: True)
            assert await running.end() == 0
        assert any(peer.serial in RevocationList.parse(one).serials for one in first.revocation_lists)
