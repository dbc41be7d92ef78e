"""Tasks get their own identities, and the attestor server hears that they live.

Opening a task only says that it is to have one, so an attestor server that is down stops no task: it gets its identity
when the server is there again. While no broker says so, the server renews none (traps 21).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from broker.engines.svid import TARGET, Svid
from broker.errors import ClockUntrusted, Fenced
from broker.lifecycle import identity
from broker.lifecycle.schedule import pages
from broker.lifecycle.world import World
from broker.model.ids import TaskId
from broker.store import tasks
from ca.errors import NotFound, Problem
from ca.runtime import log

_log = log.get(__name__)

EVERY = 10.0
"""Seconds between two words that tasks live, and between two looks for tasks nobody said anything of."""

_AT_ONCE, _BATCH = 16, 500
_FIRST, _LONGEST = 1.0, 600.0
"""Seconds until a task that was refused its identity is tried again: four times as long after each time."""


@dataclass(slots=True)
class _Pause:
    """How a task that has none yet is waited for, in boot time."""

    length: float
    until: float


@dataclass(slots=True)
class Identities:
    """The reconciler of tasks' own identities, where the attestor server is ours."""

    world: World
    _looked_at: float | None = None
    _pauses: dict[TaskId, _Pause] = field(default_factory=dict)

    async def tick(self, now: datetime) -> int:
        """Ask for those that are missing, and confirm those that are there; answers how many were given."""
        engine = self.world.engines.get(TARGET)
        if not isinstance(engine, Svid) or not engine.connected:
            return 0  # who is to have one is written down with the task
        boot = self.world.clock.boot()
        wanted = set(self.world.nameless)
        self.world.nameless.clear()
        wanted |= {task for task, pause in self._pauses.items() if pause.until <= boot}
        if self._looked_at is None or boot - self._looked_at >= EVERY:
            await self._confirm(engine)
            missing = await self.world.database.read(lambda tx: tasks.without_identity(tx, _BATCH))
            wanted |= {one for one in missing if one not in self._pauses}
            self._looked_at = boot
        places = asyncio.Semaphore(_AT_ONCE)
        given = await asyncio.gather(*(self._give(task, now, places) for task in sorted(wanted)))
        return sum(given)

    async def _confirm(self, engine: Svid) -> None:
        """Page by page. Of one that ended while the store was full nothing is said."""
        _, calls = self.world.at(TARGET)
        async for active in pages(self.world, TARGET):
            names = [lease.handle.name for lease in active if lease.task not in self.world.unrecorded]
            try:
                await calls.call(engine.confirm(names))
            except Problem as problem:
                _log.warning("the attestor server was not told which tasks live", tasks=len(names), error=problem)
                return

    async def _give(self, task: TaskId, now: datetime, places: asyncio.Semaphore) -> bool:
        async with places:
            try:
                if not self.world.clock.trusted():
                    raise ClockUntrusted("the machine's clock was stepped, nothing is given until it is stable")
                given = await identity.give(self.world, task, now)
            except (Fenced, NotFound):
                self._pauses.pop(task, None)  # it has ended, or is about to
                return False
            except Problem as problem:
                pause = self._wait(task)
                _log.info("a task has no identity yet", task=task, again_in=pause, error=problem)
                return False
        if given is None and task in self._pauses:  # what came of the attempt before is still being settled
            self._pauses[task].until = self.world.clock.boot() + self._pauses[task].length
            return False
        self._pauses.pop(task, None)
        return given is not None

    def _wait(self, task: TaskId) -> float:
        before = self._pauses.get(task)
        length = _FIRST if before is None else min(_LONGEST, before.length * 4)
        self._pauses[task] = _Pause(length, self.world.clock.boot() + length)
        return length
