"""What a changed rule file would do to the instances there are, said before it does it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attestor.rules.difference import RuleChanges, Shift, rule_changes, shift
from attestor.rules.evaluate import Evaluation, Facts
from attestor.rules.model import RuleSet
from attestor.server.rule_source import RuleSource
from attestor.server.store import facts as store
from attestor.server.store import instances, nodes
from attestor.server.store.facts import Known
from attestor.server.store.nodes import Node
from ca.runtime.database import Database, Transaction
from ca.spiffe.id import SpiffeId

MOST_TOLD = 500
"""Instances told one by one; the rest is only counted."""
_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What would be: which rules are others, and what that means for whom."""

    rules: RuleChanges
    warnings: tuple[str, ...]
    version: str
    looked_at: int
    affected: int
    losing: int
    gaining: int
    told: tuple[tuple[Known, Shift], ...]


class DryRun:
    """One for each server process."""

    def __init__(self, database: Database, rules: RuleSource) -> None:
        self._database, self._rules = database, rules

    async def foresee(self, path: Path, text: str) -> Foreseen:
        """What would be if the rule file `path` held `text`. Raises BadRules: it would be refused."""
        return await self.compare(self._rules.tried(path, text))

    async def compare(self, rules: RuleSet) -> Foreseen:
        """What would be if these rules were in force."""
        before, after = self._rules.evaluation, Evaluation(rules)
        looked_at, losing, gaining = 0, 0, 0
        shifts: list[tuple[Known, Shift]] = []
        async for known, facts in self._live():
            looked_at += 1
            found = shift(before, after, facts)
            losing += bool(found.loses)
            gaining += bool(found.gains)
            if found:
                shifts.append((known, found))
        shifts.sort(key=lambda one: (not one[1].loses, not one[1].gains, one[0].node, one[0].instance))
        return Foreseen(
            rules=rule_changes(before.rules, after.rules),
            warnings=after.rules.warnings,
            version=after.version,
            looked_at=looked_at,
            affected=len(shifts),
            losing=losing,
            gaining=gaining,
            told=tuple(shifts[:MOST_TOLD]),
        )

    async def _live(self) -> AsyncIterator[tuple[Known, Facts]]:
        """Every instance that has not ended, in pieces, with what is known of it."""
        found = {one.id: one for one in await self._database.read(nodes.everything)}
        after = ""
        while piece := await self._database.read(lambda tx, after=after: self._piece(tx, found, after)):  # type: ignore[misc]
            for one in piece:
                yield one
            after = piece[-1][0].instance

    @staticmethod
    async def _piece(tx: Transaction, found: Mapping[str, Node], after: str) -> list[tuple[Known, Facts]]:
        piece = []
        for known in await store.live(tx, after, _AT_ONCE):
            inherited: set[SpiffeId] = set()
            for ancestor in known.ancestors:
                inherited |= {given.id for given in await instances.given_to(tx, ancestor)}
            node = found.get(known.node)
            facts = Facts(
                node=node.selectors if node else frozenset(),
                workload=known.selectors,
                strength=known.strength,
                inherited=frozenset(inherited),
            )
            piece.append((known, facts))
        return piece
