"""A broker's world for tests: a real SQLite store, a target, a clock; nothing of it is pretended but the outside.

async with living(tmp_path) as house:
    task = await house.open()
    handed = await house.obtain(task)
    await house.end(task)
    await house.reap()
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from broker.engines.protocol import Engine
from broker.lifecycle import end_task
from broker.lifecycle.acknowledge import acknowledge
from broker.lifecycle.obtain import HandOver, obtain
from broker.lifecycle.world import World, open_world
from broker.loops.deadlines import Deadlines
from broker.loops.processes import Processes
from broker.loops.reaper import Reaper
from broker.loops.sweep import Sweep
from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.decision import Decision, Effect, Permit
from broker.model.event import Event
from broker.model.ids import InstanceId, LeaseId, TaskId, new_decision, new_task
from broker.model.lease import Lease
from broker.model.observed import Observation, Observed
from broker.model.receipt import Entry
from broker.model.role import Role
from broker.model.scope import Budget, Scope, Sensitivity, patterns
from broker.model.task import EndReason, Task, TaskState
from broker.store import events, installation, leases, receipts, tasks
from broker.targets.target import open_target
from ca.runtime.clock import Clock
from ca.runtime.database import Database, migrate
from ca.spiffe.id import SpiffeId
from fakes.clock import ManualClock
from fakes.stores import chosen
from fakes.target import FakeEngine, FakeTarget

POLICY = "policy-1"
AGENT = SpiffeId.parse("spiffe://example.org/agent")


class Watching:
    """An observer whose word a test sets; instances it was told nothing of live."""

    def __init__(self) -> None:
        self.states: dict[InstanceId, Observation] = {}

    async def bind(self, instance: InstanceId) -> Observed:
        return self.observed(instance)

    async def watch(self, instance: InstanceId) -> None:
        """It hears of all of them."""

    def observed(self, instance: InstanceId) -> Observed:
        return Observed(state=self.states.get(instance, Observation.LIVE), strength="own-uid")


@dataclass
class House:
    """A world with everything at hand."""

    world: World
    reaper: Reaper
    sweeper: Sweep
    deadlines: Deadlines
    processes: Processes
    observer: Watching
    role: Role

    @property
    def clock(self) -> Any:
        return self.world.clock

    @property
    def engine(self) -> Any:
        return self.world.engines[self.role.target]

    async def open(self, parent: Task | None = None, **changes: Any) -> Task:
        """Write an active task."""
        now, name = self.clock.now(), new_task(self.clock.now())
        task = Task(
            id=name,
            root=name if parent is None else parent.root,
            parent=None if parent is None else parent.id,
            state=TaskState.ACTIVE,
            version=1,
            owner=AGENT,
            instance=None,
            purpose="to see",
            scope=Scope(roles=patterns(["*"]), sensitivity=Sensitivity.RESTRICTED, budget=Budget()),
            opened_at=now,
            deadline=now + timedelta(hours=8),
            heartbeat=None,
            heard_at=now,
        )
        task = replace(task, **changes)
        await self.world.database.write(lambda tx: tasks.insert(tx, task))
        return task

    def permit(self, task: Task, role: Role | None = None, policy: str = POLICY) -> Permit:
        """A decision that permits obtaining the role."""
        now, role = self.clock.now(), role or self.role
        act = Act(action=Action.OBTAIN, resource=role.full_name, sensitivity=role.sensitivity)
        decision = Decision(
            id=new_decision(now),
            effect=Effect.PERMIT,
            policies=("allow-readers",),
            reason="readers may read",
            policy_version=policy,
            decided_at=now,
        )
        caller = Workload(id=AGENT, instance=None, not_after=now + timedelta(hours=1))
        return Permit.of(caller, task, act, decision)

    async def obtain(self, task: Task, *, key: str | None = None, role: Role | None = None, **more: Any) -> HandOver:
        """Ask for the role's secret."""
        return await obtain(
            self.world,
            more.pop("permit", None) or self.permit(task, role),
            role or self.role,
            idempotency_key=key or secrets.token_hex(8),
            body_digest=more.pop("digest", "body"),
            ttl=more.pop("ttl", None),
            now=self.clock.now(),
        )

    async def held(self, task: Task, **more: Any) -> HandOver:
        """Ask for the role's secret, and acknowledge it."""
        handed = await self.obtain(task, **more)
        await acknowledge(self.world, task.id, handed.lease.id, str(AGENT), self.clock.now())
        return handed

    async def end(self, task: Task, reason: EndReason = EndReason.SAID_SO, **more: Any) -> Sequence[Task]:
        return await end_task.end(self.world, task.id, reason=reason, now=self.clock.now(), **more)

    async def reap(self) -> None:
        await self.reaper.tick(self.clock.now())

    async def sweep(self) -> Any:
        (swept,) = await self.sweeper.tick(self.clock.now())
        return swept

    async def task(self, task: TaskId) -> Task:
        return await self.world.database.read(lambda tx: tasks.get(tx, task))

    async def lease(self, lease: LeaseId) -> Lease:
        return await self.world.database.read(lambda tx: leases.get(tx, lease))

    async def leases(self) -> Sequence[Lease]:
        return await self.world.database.read(lambda tx: leases.page(tx, after=None, limit=10_000))

    async def events(self) -> Sequence[Event]:
        return await self.world.database.read(lambda tx: events.after(tx, 0, 10_000))

    async def receipts(self) -> Sequence[Entry]:
        return await self.world.database.read(lambda tx: receipts.page(tx, after=None, limit=10_000))


def role(target: str = "orders-db", name: str = "readonly", **changes: Any) -> Role:
    """A role, two minutes ahead, one hour at most, thirty seconds to acknowledge."""
    plain = Role(
        target=target,
        name=name,
        engine="fake",
        sensitivity=Sensitivity.INTERNAL,
        ttl=timedelta(minutes=2),
        longest=timedelta(hours=1),
        ack_within=timedelta(seconds=30),
    )
    return replace(plain, **changes)


@asynccontextmanager
async def living(
    folder: Path,
    *,
    clock: Clock | None = None,
    engine: Engine | None = None,
    the_role: Role | None = None,
    store: AbstractAsyncContextManager[Database] | None = None,
    wrap: Any = None,
    deadline: timedelta = timedelta(seconds=10),
    **facts: Any,
) -> AsyncIterator[House]:
    """A broker process: entering it a second time with the same folder is a restart."""
    clock = clock or ManualClock()
    engine = engine or FakeEngine(FakeTarget(clock))
    the_role = the_role or role()
    async with (
        store or chosen(folder / "broker.db") as database,
        open_target(the_role.target, clock, deadline=deadline) as calls,
    ):
        await settle(database)
        settled = await database.write(lambda tx: installation.settle(tx, clock.now()))
        observer = Watching()
        async with open_world(
            database=wrap(database) if wrap else database,
            engines={the_role.target: engine},
            targets={the_role.target: calls},
            roles={the_role.full_name: the_role},
            policy_version=facts.pop("policy_version", lambda: POLICY),
            broker=f"b-{secrets.token_hex(4)}",
            installation=settled,
            observer=observer,
            clock=clock,
            **facts,
        ) as world:
            yield House(world, Reaper(world), Sweep(world), Deadlines(world), Processes(world), observer, the_role)


async def settle(store: Database) -> None:
    """Make the broker's tables."""
    await migrate(store, "broker", resources.files("broker.migrations"))
