"""The one choke point: identify, decide, record, act; in this order or not at all.

A use case asks the gate for everything it may not do by itself: who the caller is to the task, whether the task may
still be given anything, what the policies say. What the gate answers with is a `Permit`, and only a permit opens
`lifecycle`. A denial is recorded before it is told; a permit is recorded by the transaction that acts on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.errors import ClockUntrusted, Refused
from broker.lifecycle import told
from broker.lifecycle.world import World
from broker.model.act import Act
from broker.model.caller import Operator, Verb, Workload
from broker.model.decision import Decision, Permit
from broker.model.ids import TaskId
from broker.model.observed import Observation, Observed
from broker.model.receipt import Receipt
from broker.model.role import Role
from broker.model.task import USABLE, Task
from broker.policy.decide import Facts, decide
from broker.policy.source import PolicyHolder
from broker.service.proofs import Asked, Proofs, acting, not_yours
from broker.store import receipts, tasks
from ca.errors import Denied, Malformed, NotFound, Unavailable
from ca.runtime.database import Transaction
from ca.runtime.metrics import Metrics
from ca.spiffe.id import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator bounds for every task."""

    longest_task: timedelta
    longest_heartbeat: timedelta
    deepest_tree: int
    most_live_tasks: int
    """Of one SPIFFE ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What every use case stands on."""

    world: World
    policies: PolicyHolder
    proofs: Proofs
    limits: Limits
    metrics: Metrics
    trust_domain: TrustDomain
    stopping: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set before everything is ended: what is ended then stays ended, and nothing new begins."""

    async def proven(self, asked: Asked, task: TaskId) -> tuple[Task, ...]:
        """The chain of tasks above and including `task`, root first, once the caller has proven it.

        Raises:
            NotFound: there is no such task, or the caller did not prove it.
            Unauthenticated: it showed something that is no proof.
        """
        shown = self.proofs.read(asked)
        chain = await self._chain(task)
        self.proofs.demand(asked, chain[-1], shown)
        return chain

    async def readable(self, asked: Asked, task: TaskId) -> tuple[Task, ...]:
        """As `proven`; but operators by verb, and whoever is the process of a task above may look down the tree."""
        if isinstance(asked.caller, Operator):
            asked.demand(Verb.READ_TASKS)
            return await self._chain(task)
        shown, caller = self.proofs.read(asked), asked.workload
        chain = await self._chain(task)
        above = (one for one in chain if one.instance is not None and one.instance == caller.instance)
        self.proofs.demand(asked, next(above, chain[-1]), shown)
        return chain

    async def _chain(self, task: TaskId) -> tuple[Task, ...]:
        try:
            return tuple(await self.world.database.read(lambda tx: tasks.chain(tx, task)))
        except NotFound as error:  # in the words of a task that is somebody else's
            raise not_yours(task) from error

    def giving(self) -> None:
        """Say that this broker gives anything at all. Raises ClockUntrusted, Unavailable."""
        if self.stopping.is_set():
            raise Unavailable("this broker is stopping, it gives nothing any more")
        if not self.world.clock.trusted():
            raise ClockUntrusted("the machine's clock was stepped, nothing is given until it is stable for a minute")

    async def watch(self, chain: Sequence[Task]) -> None:
        """Hear of every process of a chain that was proven: another broker may have opened these tasks just now.

        Raises:
            Unavailable: the attestor server does not answer.
        """
        for task in chain:
            if task.instance is not None:
                await self.world.observer.watch(task.instance)

    def usable(self, chain: Sequence[Task], now: datetime) -> Observed:
        """Say that the last task of `chain` may be given something new.

        Raises:
            ClockUntrusted, Unavailable: nothing is given while the clocks disagree, or any more.
            Denied: it, or a task above it, has ended, waits, is late or silent, or a process of the chain isn't seen to
                live.
        """
        self.giving()
        task = chain[-1]
        if task.state not in USABLE:
            raise Denied(f"the task is `{task.state}`, only an active task is given anything", state=task.state)
        for above in chain:
            if not above.is_live or above.is_past_deadline(now) or above.is_silent(now):
                raise Denied(
                    f"the task `{above.id}` has ended, is past its deadline or has fallen silent", task=above.id
                )
        return [self._seen(link) for link in chain][-1]

    def _seen(self, task: Task) -> Observed:
        if task.instance is None:
            return Observed(state=Observation.UNKNOWN, strength="none")
        observed = self.world.observer.observed(task.instance)
        if observed.state is not Observation.LIVE:
            raise Denied(f"the process of `{task.id}` is `{observed.state}`, expected one that is seen to live")
        return observed

    def facts(self, observed: Observed, role: Role | None = None) -> Facts:
        """What the broker and the attestor vouch for; what the caller claims stands in the act."""
        return Facts(
            strength=observed.strength,
            observation=observed.state,
            trust_domain=self.trust_domain,
            role=role,
            roles=tuple(self.world.roles.values()),
        )

    def role(self, name: str, *, held: bool = False) -> Role:
        """The role `target/role`; whether one may have it is decided later. `held`: a secret of it is out already.

        Raises:
            Malformed: there is none.
            Denied: it was taken out of the settings, nobody is given it anew.
        """
        found = self.world.roles.get(name)
        if found is not None and name in self.world.leaving and not held:
            raise Denied(f"the role `{name[:120]}` was taken out of the settings, nobody is given it anew", role=name)
        if found is None:
            raise Malformed(f"there is no role `{name[:120]}`, `GET /v1/roles` lists what may be asked for")
        return found

    def decide(self, caller: Workload, chain: Sequence[Task], act: Act, facts: Facts, now: datetime) -> Decision:
        """Ask the policies; count the answer."""
        decision = decide(self.policies.current, acting(caller, chain), chain, act, facts, now)
        self.metrics.count("sojourn_decisions_total", effect=str(decision.effect))
        return decision

    async def permit(self, caller: Workload, chain: Sequence[Task], act: Act, facts: Facts, now: datetime) -> Permit:
        """Decide an act of the last task of `chain`.

        Raises:
            Refused: denied; the denial is durable before this is raised.
        """
        caller = acting(caller, chain)
        decision = self.decide(caller, chain, act, facts, now)
        if not decision.permits:
            await self.record_denial(caller, chain[-1] if chain else None, act, decision)
            raise refusal(decision)
        return Permit.of(caller, chain[-1], act, decision)

    async def record_denial(self, caller: Workload, task: Task | None, act: Act, decision: Decision) -> None:
        """Make a denial durable."""
        await self.record(told.decision(caller, task.id if task is not None else None, act, decision))

    async def record(self, *said: Receipt) -> None:
        """Make receipts durable."""

        async def write(tx: Transaction) -> None:
            await receipts.append(tx, self.world.broker, *said)

        await self.world.database.write(write)


def refusal(decision: Decision) -> Refused:
    """A denying decision as the agent is told it: who decided, why, and the smallest change that would permit."""
    return Refused(
        decision.reason,
        decision=decision.id,
        policies=", ".join(decision.policies) or "none permits it",
        nearest="; ".join(decision.nearest) or "no single change",
    )
