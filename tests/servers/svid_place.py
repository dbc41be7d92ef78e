"""An attestor server's identities of tasks as the contract of engines sees them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation
from attestor.wire.node import Signed
from attestor.wire.task_identity import Grant, Granted, Withdrawal
from broker.engines.protocol import Issued
from broker.engines.svid import Svid, task_role
from broker.model.lease import Handle
from broker.model.role import Role
from ca.runtime.clock import Clock
from ca.spiffe.id import SpiffeId
from ca.store import is_revoked
from fakes.attestor_parts import Parts, attestation, parts, wants
from servers.place import new_prefix

IDENTITY_RULES = """\
rules:
  - name: a
    nodes: ["node:*"]
    when: [unix:uid:7]
    spiffe_id: /a
"""


class EachItsOwnTask(Svid):
    """Every name is another task's: the role of a test is one and the same."""

    def plan(self, role: Role, name: str) -> Handle:
        return super().plan(replace(role, settings={**role.settings, "task": name.rpartition("_")[2]}), name)


@dataclass
class Beside:
    """An attestor server's identities of tasks, without the wire to them."""

    server: Parts
    connected: bool = True

    async def grant(self, grant: Grant) -> Granted:
        return await self.server.identities.grant(grant, self.server.clock.now())

    async def withdraw(self, name: str, *, close: bool = False) -> int:
        return await self.server.identities.withdraw(Withdrawal(name=name, close=close), self.server.clock.now())

    async def names(self, prefix: str) -> Sequence[str]:
        return await self.server.identities.names(prefix, "")

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        return await self.server.identities.confirm(tuple(names), self.server.clock.now())


@dataclass
class LeafVisit:
    """A certificate of the task is what opens doors."""

    server: Parts
    chain: bytes

    async def answers(self) -> bool:
        peer = self.server.peer(self.chain)
        return not await self.server.database.read(lambda tx: is_revoked(tx, peer.issuer_key_id, peer.serial))


@dataclass
class SvidPlace:
    engine: EachItsOwnTask
    role: Role
    clock: Clock
    prefix: str
    server: Parts
    node: Node
    process: Attestation

    async def login(self, issued: Issued) -> LeafVisit | None:
        item = wants(SpiffeId.parse(str(issued.fields["spiffe_id"])).path, self.process)
        (result,) = await self.server.workloads.sign(self.node, [item], self.clock.now())
        return LeafVisit(self.server, result.chain) if isinstance(result, Signed) else None


@asynccontextmanager
async def svid_place() -> AsyncIterator[SvidPlace]:
    """A process of one node, and the identities of its tasks."""
    with tempfile.TemporaryDirectory() as folder:
        async with parts(Path(folder), IDENTITY_RULES) as server:
            node, process = await server.join("n"), attestation("unix:uid:7")
            await server.workloads.sign(node, [wants("/a", process)], server.clock.now())
            the_role, engine = task_role("t", process.instance), EachItsOwnTask(Beside(server))
            yield SvidPlace(engine, the_role, server.clock, new_prefix(), server, node, process)
