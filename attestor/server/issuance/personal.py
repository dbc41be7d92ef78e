"""Identities an instance has besides those of the rules: one for each of its tasks, and not a moment longer.

They stand behind the rules' identities, so the default one stays what it is. A broker asked for each
(`server/task_identity.py`) and says again and again that the task lives; for one that it has not confirmed lately
nothing new is signed, and what was signed before runs out in minutes (traps 21).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from attestor.errors import NotEntitled, Unobserved
from attestor.instance import Binding
from attestor.rules.evaluate import Entitled
from attestor.rules.model import Condition, Rule
from attestor.rules.template import Template
from attestor.server.store import task_identities as store
from attestor.server.store.nodes import Node
from attestor.server.store.task_identities import TaskIdentity
from attestor.wire.task_identity import LONGEST_LEAF, LONGEST_TOKEN, TASK_PATH
from ca.runtime.database import Database, Transaction
from ca.spiffe.id import SpiffeId, TrustDomain

RULE = "a task"
"""What `explain` and the records name where a rule's name would stand."""


@dataclass(frozen=True, slots=True)
class Personal:
    """One for each server process; nothing is signed for a task that was not confirmed for `patience`."""

    database: Database
    trust_domain: TrustDomain
    patience: timedelta

    async def of(self, node: Node, instances: Sequence[str]) -> Mapping[str, tuple[Entitled, ...]]:
        """What each of `instances` has, oldest task first; who has nothing, or is another node's, is left out."""
        if not instances:
            return {}
        found = await self.database.read(lambda tx: store.of_instances(tx, sorted(set(instances))))
        return {
            instance: tuple(self._entitled(one) for one in ones if one.node == node.id)
            for instance, ones in found.items()
        }

    async def versions(self, node: Node) -> Mapping[str, str]:
        """For every instance of `node` that has one: a word that changes whenever what it has does."""
        found = await self.database.read(lambda tx: store.names_on(tx, node.id))
        return {
            instance: hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] for instance, names in found.items()
        }

    async def check(self, instance: str, wanted: SpiffeId, now: datetime) -> None:
        """Say that something may be signed for `wanted` now. Raises NotEntitled, Unobserved."""
        await self.database.read(lambda tx: self._check(tx, instance, wanted, now))

    async def still_in_force(self, tx: Transaction, instance: str, wanted: SpiffeId, now: datetime) -> None:
        """Inside the unit that records a signature: it does not end before this unit does. Raises NotEntitled."""
        for one in await store.of_instance(tx, instance):
            if self.id(one.task) == wanted and now < one.ends_at and await store.hold(tx, one.name):
                return
        raise NotEntitled(f"`{wanted}` was withdrawn")

    def id(self, task: str) -> SpiffeId:
        """What the identity of a task is called."""
        return self.trust_domain.member(TASK_PATH + task)

    async def _check(self, tx: Transaction, instance: str, wanted: SpiffeId, now: datetime) -> None:
        found = next((one for one in await store.of_instance(tx, instance) if self.id(one.task) == wanted), None)
        if found is None or now >= found.ends_at:
            raise NotEntitled(f"`{wanted}` was withdrawn, or was never this instance's")
        if not abs(now - found.confirmed_at) < self.patience:  # a time ahead of ours is no word of today either
            raise Unobserved(f"`{wanted}` gets nothing new: its broker has not said lately that the task lives")

    def _entitled(self, one: TaskIdentity) -> Entitled:
        rule = Rule(
            name=RULE,
            source="asked for by a broker",
            nodes=None,
            when=Condition(()),
            template=Template.parse(TASK_PATH + one.task, self.trust_domain, may_be_reserved=True),
            hint=one.task,
            x509_ttl=LONGEST_LEAF,
            jwt_ttl=LONGEST_TOKEN,
            bind=Binding.PROCESS,
        )
        return Entitled(self.id(one.task), rule, one.task, ends_at=one.ends_at)


def lives(entitled: Entitled, ttl: timedelta, now: datetime) -> timedelta:
    """How long something that would live for `ttl` may live."""
    if entitled.ends_at is None:
        return ttl
    return min(ttl, entitled.ends_at - now)


def behind(entitled: Sequence[Entitled], personal: Sequence[Entitled]) -> tuple[Entitled, ...]:
    """Those of the rules, then its own; a hint that a rule uses already is the rule's.

    Whom no rule gives an identity to any more has none for its tasks either.
    """
    if not entitled:
        return ()
    hints = {one.hint for one in entitled}
    return (*entitled, *(replace(one, hint="" if one.hint in hints else one.hint) for one in personal))
