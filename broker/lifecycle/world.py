"""What the life of a task and a lease is lived with: the store, the targets, and who else must be woken.

`lifecycle` is a set of functions over this one value. Nothing in it decides: a permit was decided by the gate, a due
time was written with the lease, `now` is an argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from broker.engines.naming import name, prefix
from broker.engines.protocol import Engine, Listing, has
from broker.errors import Fenced, TargetDown
from broker.lifecycle.flight import InFlight
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import IDENTITY
from broker.model.observed import Observer
from broker.model.quota import Quotas
from broker.model.role import Guarantee, Role
from broker.model.task import EndReason, Task, TaskEvent
from broker.store.installation import Installation
from broker.store.quarantine import guarded
from broker.targets.target import Target
from ca.runtime.clock import Clock
from ca.runtime.database import Database
from ca.runtime.process import Wake
from ca.seal import Seal

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedEnd:
    """A task that ended while the store could not say so: held in memory until it can (traps 12)."""

    task: TaskId
    event: TaskEvent
    reason: EndReason
    words: str | None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """See the module. `broker` is this process's own id, new at each start: the writer of its receipts."""

    database: Database
    engines: Mapping[str, Engine]
    targets: Mapping[str, Target]
    roles: Mapping[str, Role]
    policy_version: Callable[[], str]
    broker: str
    installation: Installation
    observer: Observer
    clock: Clock
    group: asyncio.TaskGroup = field(repr=False)
    leaving: AbstractSet[str] = frozenset()
    """Roles that are given to nobody anew."""
    points: Sequence[str] = ()
    """Enforcement points that are expected to confirm each end, by how they are called when they ask."""
    quotas: Quotas = field(default_factory=Quotas)
    parties: Sequence[str] = ()
    """Whom the outbox tells of every ended task."""
    feed: Wake = field(default_factory=Wake, repr=False)
    reaper: Wake = field(default_factory=Wake, repr=False)
    outbox: Wake = field(default_factory=Wake, repr=False)
    in_flight: InFlight = field(repr=False)
    """Leases a call of this process is just making or replacing: nobody else of us touches them."""
    claimed: set[str] = field(default_factory=set, repr=False)
    """Targets that were seen to carry our claim since this process began."""
    foreign: dict[str, str] = field(default_factory=dict, repr=False)
    """Targets that carry another installation's claim, and what was said of it: nothing is given there."""
    nameless: set[TaskId] = field(default_factory=set, repr=False)
    """Tasks that were just opened and are to have an identity of their own."""
    identities: Wake = field(default_factory=Wake, repr=False)
    seal: Seal | None = field(default=None, repr=False)
    """What values rest under; without one none does."""
    rotate_every: Mapping[str, timedelta] = field(default_factory=dict)
    """Targets at which our own password is rotated, and how often."""
    unrecorded: dict[TaskId, UnrecordedEnd] = field(default_factory=dict, repr=False)

    @property
    def prefix(self) -> str:
        """What every principal of ours is called by."""
        return prefix(self.installation.id)

    def name_of(self, lease: LeaseId) -> str:
        """The principal of a lease."""
        return name(self.installation.id, self.installation.name_key, lease)

    def name_soon(self, task: Task) -> None:
        """Let a task that was just opened have its own identity, where there are such."""
        if task.instance is not None and IDENTITY in self.engines:
            self.nameless.add(task.id)
            self.identities.set()

    def refuse_unrecorded(self, line: Sequence[Task]) -> None:
        """A task that ended while the disk was full has ended, whatever its row says. Raises Fenced."""
        if any(link.id in self.unrecorded for link in line):
            raise Fenced("the task ended")

    def at(self, target: str) -> tuple[Engine, Target]:
        """The engine and the calls of a target. Raises TargetDown: it is not among the settings any more."""
        engine, calls = self.engines.get(target), self.targets.get(target)
        if engine is None or calls is None:
            raise TargetDown(f"the target `{target}` is not configured here, what is left there can't be ended")
        return engine, calls

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when whoever waits for it goes away; what it raises is raised here."""
        task = self.group.create_task(_kept(work))
        value, error = await asyncio.shield(task)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


async def _kept(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    try:
        return await work, None
    except Exception as error:  # noqa: BLE001 - raised where it is waited for; alone it must not end the group
        return None, error


def promised(engine: Engine, role: Role) -> Guarantee:
    """What taking back a secret of `role` means, and whether a sweep finds what came too late."""
    return replace(engine.guarantee(role), swept=has(type(engine), Listing))


@asynccontextmanager
async def open_world(**facts: Any) -> AsyncIterator[World]:
    """A world of which nothing is dropped half-way: leaving it waits for hand-overs under way."""
    async with asyncio.TaskGroup() as group:
        clock = facts["clock"]
        store = guarded(facts.pop("database"), clock)
        yield World(group=group, in_flight=InFlight(clock), database=store, **facts)
