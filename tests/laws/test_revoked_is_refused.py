"""Law: after the push an ended bound instance's leaf is accepted by nobody, and a list names nothing but what was told.

Whatever instances do, whichever process signs the lists, and wherever one was killed in between.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestor.instance import new_id
from attestor.server.revocation import Revocations
from attestor.server.store.nodes import Node
from attestor.wire.node import LiveSet, Signed
from ca import store
from ca.revocation import PAUSE, Lists
from ca.runtime.database import Transaction
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import Revoked, X509Peer, verify
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.pki import der_chain

RULES = """\
rules:
  - {name: bound, nodes: ["node:*"], when: [unix:uid:9], spiffe_id: /team/bound, bind: process}
  - {name: free, nodes: ["node:*"], when: [unix:uid:7], spiffe_id: /free}
"""
MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ("bound", "free", "again", "task", "end", "leaf", "instance", "under", "tick", "restart", "kill", "wait")
        ),
        st.integers(0, 7),
    ),
    max_size=24,
)


@dataclass
class Process:
    """One instance, as the test knows it."""

    uid: int
    bound: bool
    live: bool = True
    id: str = field(default_factory=new_id)
    leaves: list[X509Peer] = field(default_factory=list)


class Play:
    """Moves the server and a model of it."""

    def __init__(self, server: Parts, node: Node) -> None:
        self.server, self.node = server, node
        self.verbs = Revocations(server.database, server.instances)
        self.lists = Lists(server.authority)
        self.all: list[Process] = []
        self.told: set[int] = set()
        self.counter = 1

    async def move(self, verb: str, which: int) -> None:
        """One move, if there is somebody to make it."""
        if verb in {"bound", "free"}:
            await self._give(Process(uid=9 if verb == "bound" else 7, bound=verb == "bound"))
        elif verb in {"tick", "restart", "kill", "wait"}:
            await self._tend(verb)
        elif self.all:
            await self._touch(verb, self.all[which % len(self.all)])

    async def _touch(self, verb: str, one: Process) -> None:
        now = self.server.clock.now()
        if verb == "again" and one.live:
            await self._give(one)
        elif verb == "task":
            await self.server.instances.bind(one.id)
            one.bound |= one.live
        elif verb == "end":
            self._over(one, every=False)
            await self._report()
        elif verb == "leaf":
            await self.verbs.leaf(one.leaves[0].issuer_key_id, one.leaves[0].serial, now)
            self.told.add(one.leaves[0].serial)
        elif verb == "instance":
            self._over(one, every=True)
            await self.verbs.instance(one.id, now)
        elif verb == "under":
            for other in self.all:
                if other.uid == 9:
                    self._over(other, every=True)
            await self.verbs.under(self.server.authority.trust_domain.member("/team"), now)

    async def _tend(self, verb: str) -> None:
        if verb == "restart":
            self.lists = Lists(self.server.authority)
        elif verb == "kill":
            await self.server.database.write(self._half)
        elif verb == "wait":
            await self.server.clock.advance(PAUSE.total_seconds())
            await self._report()
        await self.lists.tick(self.server.clock.now())

    async def _half(self, tx: Transaction) -> None:
        """What a signer had done when it was killed: the rows are claimed, and there is no list."""
        for issuer, number in (await store.numbers(tx)).items():
            await store.claim_entries(tx, issuer, above=number, number=number + 1, most=9, now=self.server.clock.now())

    async def _give(self, one: Process) -> None:
        of = attestation(f"unix:uid:{one.uid}", instance=one.id, counter=self.counter)
        path = "/team/bound" if one.uid == 9 else "/free"
        (signed,) = await self.server.workloads.sign(self.node, [wants(path, of)], self.server.clock.now())
        assert isinstance(signed, Signed)
        if not one.leaves:
            self.all.append(one)
        one.leaves.append(self.server.peer(signed.chain))

    def _over(self, one: Process, *, every: bool) -> None:
        if every or (one.live and one.bound):
            self.told |= {leaf.serial for leaf in one.leaves}
        one.live = False

    async def _report(self) -> None:
        self.counter += 1
        live = frozenset(one.id for one in self.all if one.live)
        await self.server.instances.report(
            self.node, LiveSet(counter=self.counter, instances=live), self.server.clock.now()
        )

    def accepted(self) -> set[int]:
        """The serials a verifier takes that was pushed what this signer has."""
        lists, now, found = RevocationLists.of(self.lists.ders), self.server.clock.now(), set[int]()
        for leaf in (leaf for one in self.all for leaf in one.leaves):
            try:
                verify(der_chain(leaf.chain[:-1]), BundleSet.of(self.server.authority.bundle(now)), now, lists)
            except Revoked:
                continue
            found.add(leaf.serial)
        return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(MOVES)
def test_exactly_what_was_told_dead_is_refused(moves: list[tuple[str, int]]) -> None:
    """Never more at any time, and not less once the push has come."""

    async def play(folder: Path) -> None:
        async with parts(folder, RULES) as server:
            play = Play(server, await server.join("n"))
            for verb, which in moves:
                await play.move(verb, which)
                named = {serial for one in play.lists.revocations for serial in one.serials}
                assert named <= play.told
            await play.move("wait", 0)
            given = {leaf.serial for one in play.all for leaf in one.leaves}
            assert play.accepted() == given - play.told

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
