"""Whatever is due for a lease: renewed, given up, settled, ended, verified gone. The first tick is the recovery.

A tick takes no input and may be repeated, interrupted or run by several at once: every step it takes is a
compare-and-swap or safe to repeat. Each target is attended by itself, and a tick waits a moment for those that are
quick: one that is slow or dead holds up no other, and is left alone until its batch is over.

While a target does not answer nothing is asked of it but by one canary, and nothing of its backlog is touched: what is
due stays due and costs nothing. Ends are still decided and told. When the canary is answered the backlog is drained,
the longest overdue first, at a rate the target can bear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.lifecycle import doubt, end_task, reconcile
from broker.lifecycle.attend import attend, note
from broker.lifecycle.call_in import call_in
from broker.lifecycle.world import World
from broker.loops.claims import Claims
from broker.model.lease import Lease
from broker.model.task import Task
from broker.store import endings, tasks
from broker.store.endings import Turn
from broker.targets.target import Target
from ca.errors import Problem
from ca.runtime import log

_log = log.get(__name__)

_BATCH = 200
"""Leases of one target in one tick."""

_FEW = 50
"""Of those, at a target that is not configured any more: each costs a record and nothing can be done."""

_AT_ONCE = 16
"""Attended at the same time."""

_PATIENCE = 0.25
"""Seconds a tick waits for targets, and for one that took longer not again before it was quick."""

_ENDS = ""
"""The place of endings that the store does not know yet, among targets."""


@dataclass(slots=True)
class Reaper:
    """The reconciler of leases."""

    world: World
    claims: Claims = field(default_factory=Claims)
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _slow: set[str] = field(default_factory=set)
    _looked_at: set[str] = field(default_factory=set)

    async def tick(self, now: datetime) -> None:
        """Do what is due at `now`, a batch of it; wake itself when more is left."""
        if left := await self._record_ends():
            self._start(_ENDS, end_task.cut_unrecorded(self.world, left))
        await self._take_over(now)
        uncalled = await call_in(self.world, now)
        urgent = await self.world.database.read(lambda tx: endings.of_called(tx, uncalled, _BATCH)) if uncalled else ()
        for target in sorted({*await self.world.database.read(endings.targets), *self.world.targets}):
            self._start(target, self._target(target, [one for one in urgent if one.handle.target == target], now))
        await self._wait()

    def _start(self, place: str, work: Coroutine[Any, Any, None]) -> None:
        running = self._under_way.get(place)
        if running is not None and not running.done():
            work.close()
            return
        self._under_way[place] = self.world.group.create_task(self._timed(place, work))

    async def _timed(self, place: str, work: Coroutine[Any, Any, None]) -> None:
        begun = self.world.clock.boot()
        await _safely(work, target=place)
        if self.world.clock.boot() - begun < _PATIENCE:
            self._slow.discard(place)

    async def _wait(self) -> None:
        waiting = {task for place, task in self._under_way.items() if place not in self._slow and not task.done()}
        if not waiting:
            return
        timer = self.world.group.create_task(self.world.clock.sleep(_PATIENCE))
        try:
            while waiting and not timer.done():
                _, _ = await asyncio.wait({*waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
                waiting = {task for task in waiting if not task.done()}
        finally:
            timer.cancel()
        self._slow |= {place for place, task in self._under_way.items() if task in waiting}

    async def _record_ends(self) -> Sequence[Task]:
        """What ended while the store was full is written now; answers what is only ended outside (traps 12)."""
        left: list[Task] = []
        for said in list(self.world.unrecorded.values()):
            try:
                await end_task.record(self.world, said)
            except Problem as problem:
                _log.error("a task's end still can't be recorded", task=said.task, error=problem)
                left.append(await self.world.database.read(lambda tx, task=said.task: tasks.get(tx, task)))  # type: ignore[misc]
        return left

    async def _take_over(self, now: datetime) -> None:
        """Intents of brokers that are no more: nobody will ever say how their calls ended."""
        half_made = await self.world.database.read(lambda tx: endings.half_made(tx, self.world.broker, _BATCH))
        dead = await self.claims.dead(self.world, {lease.broker for lease in half_made})
        for lease in half_made:
            if lease.broker in dead:
                await _safely(doubt.lost(self.world, lease, now), target=lease.handle.target, lease=lease.id)

    async def _target(self, target: str, urgent: Sequence[Lease], now: datetime) -> None:
        calls = self.world.targets.get(target)
        doubtful = await reconcile.quarantined(self.world, target) is not None
        if calls is None or calls.breaker.is_open:
            await self._without(target, calls, now, doubtful=doubtful)
            return
        room = calls.pace.room(self.world.clock.boot(), _BATCH)
        due = await self._due(target, now, room)
        await self._attend([*urgent, *due], calls, now, doubtful=doubtful)
        calls.pace.spend(len(due), room)
        if len(due) >= _BATCH:
            self.world.reaper.set()

    async def _due(self, target: str, now: datetime, limit: int) -> Sequence[Lease]:
        """What is due; at the first look of this process also what an earlier one had put off."""
        due = await self.world.database.read(lambda tx: endings.due(tx, target, now, self._turn(now), limit))
        if target in self._looked_at:
            return due
        self._looked_at.add(target)
        stalled = await self.world.database.read(lambda tx: endings.stalled(tx, target, now, self._turn(now), limit))
        return list({lease.id: lease for lease in (*due, *stalled)}.values())[:limit]

    def _turn(self, now: datetime) -> Turn:
        return Turn(broker=self.world.broker, others_until=self.claims.others_until(now))

    async def _without(self, target: str, calls: Target | None, now: datetime, *, doubtful: bool) -> None:
        """The target is not there: decide what needs no word of it, and send the canary when it is time."""
        self._looked_at.discard(target)
        turn = self._turn(now)
        if calls is None:
            gone = await self.world.database.read(lambda tx: endings.due(tx, target, now, turn, _FEW))
            await self._attend(gone, None, now, doubtful=doubtful)
        elif await self._look(target, calls, now, doubtful=doubtful):
            self.world.reaper.set()
            return
        for lease in await self.world.database.read(lambda tx: endings.active_due(tx, target, now, turn, _BATCH)):
            await _safely(note(self.world, lease, now, quarantined=doubtful), target=target, lease=lease.id)

    async def _look(self, target: str, calls: Target, now: datetime, *, doubtful: bool) -> bool:
        """Attend to one lease when it is time to, and see whether the target is back."""
        if not calls.breaker.may_look(self.world.clock.boot()):
            return False
        turn = self._turn(now)
        canary = await self.world.database.read(lambda tx: endings.due(tx, target, now, turn, 1))
        canary = canary or await self.world.database.read(lambda tx: endings.stalled(tx, target, now, turn, 1))
        await self._attend(canary, None, now, doubtful=doubtful)
        return not calls.breaker.is_open

    async def _attend(self, leases: Sequence[Lease], calls: Target | None, now: datetime, *, doubtful: bool) -> None:
        """One lease's trouble is no other's; what was not begun when the target went away is left as it is."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(lease: Lease) -> None:
            async with places:
                if calls is None or not calls.breaker.is_open:
                    work = attend(self.world, lease, now, quarantined=doubtful)
                    await _safely(work, target=lease.handle.target, lease=lease.id)

        await asyncio.gather(*(one(lease) for lease in leases))


async def _safely(work: Coroutine[Any, Any, object], **facts: str) -> None:
    try:
        await work
    except Problem as problem:
        _log.warning("what is due is looked at again later", error=problem, **facts)
