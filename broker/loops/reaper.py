"""Whatever is due for a lease: renewed, given up, settled, ended, verified gone. The first tick is the recovery.

A tick takes no input and may be repeated, interrupted or run by several at once: every step it takes is a
compare-and-swap or safe to repeat. Each target is attended by itself, so one that is slow or dead holds up no other: a
tick stops waiting for it, and the next one leaves it alone until it has finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle import doubt, end_task
from broker.lifecycle.attend import attend
from broker.lifecycle.told import task_event
from broker.lifecycle.world import World
from broker.loops.claims import Claims
from broker.model.event import EventKind
from broker.model.lease import Lease
from broker.store import events, leases, tasks
from ca.errors import Problem
from ca.runtime import log
from ca.runtime.database import Transaction

_log = log.get(__name__)

_BATCH = 200
"""Leases of one target in one tick."""

_AT_ONCE = 16
"""Of those, attended at the same time."""

_PATIENCE = 2.0
"""Seconds a tick waits for its targets."""


@dataclass(slots=True)
class Reaper:
    """The reconciler of leases."""

    world: World
    claims: Claims = field(default_factory=Claims)
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _hastened: bool = False

    async def tick(self, now: datetime) -> None:
        """Do what is due at `now`, a batch of it; wake itself when more is left.

        The first tick waits for no pause that an earlier process took: what kept it from ending something may be over.
        """
        if not self._hastened:
            await self._hasten(now)
        await self._record_ends()
        await self._take_over(now)
        targets = set(await self.world.database.read(leases.targets)) | set(self.world.targets)
        for target in sorted(targets):
            running = self._under_way.get(target)
            if running is None or running.done():
                self._under_way[target] = self.world.group.create_task(self._target(target, now))
        await self._wait()
        await self._close_tasks(now)

    async def _hasten(self, now: datetime) -> None:
        try:
            await self.world.database.write(lambda tx: leases.hasten(tx, now), ending=True)
        except Problem as problem:  # the store is full: what is due by itself is ended all the same
            _log.warning("pauses of an earlier process could not be cut short", error=problem)
            return
        self._hastened = True

    async def _wait(self) -> None:
        waiting = {task for task in self._under_way.values() if not task.done()}
        if not waiting:
            return
        timer = self.world.group.create_task(self.world.clock.sleep(_PATIENCE))
        try:
            while waiting and not timer.done():
                _, _ = await asyncio.wait({*waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
                waiting = {task for task in waiting if not task.done()}
        finally:
            timer.cancel()

    async def _record_ends(self) -> None:
        """What ended while the store was full is written now, or ended outside once more (traps 12)."""
        for said in list(self.world.unrecorded.values()):
            try:
                await end_task.record(self.world, said)
            except Problem as problem:
                _log.error("a task's end still can't be recorded", task=said.task, error=problem)
                ended = [await self.world.database.read(lambda tx, task=said.task: tasks.get(tx, task))]  # type: ignore[misc]
                await end_task.cut_unrecorded(self.world, ended)

    async def _take_over(self, now: datetime) -> None:
        """Intents of brokers that are no more: nobody will ever say how their calls ended."""
        half_made = await self.world.database.read(lambda tx: leases.half_made(tx, self.world.broker, _BATCH))
        dead = await self.claims.dead(self.world, {lease.broker for lease in half_made})
        for lease in half_made:
            if lease.broker in dead:
                await _safely(doubt.lost(self.world, lease, now), lease)

    async def _target(self, target: str, now: datetime) -> None:
        due = await self._due(target, now)
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(lease: Lease) -> None:
            async with places:
                await _safely(attend(self.world, lease, now), lease)

        await asyncio.gather(*(one(lease) for lease in due))
        if len(due) >= _BATCH:
            self.world.reaper.set()

    async def _due(self, target: str, now: datetime) -> Sequence[Lease]:
        turn = leases.Turn(broker=self.world.broker, others_until=self.claims.others_until(now))

        async def unit(tx: Transaction) -> Sequence[Lease]:
            ended = await leases.of_ended_tasks(tx, target, turn, _BATCH)
            rest = await leases.due(tx, target, now, turn, _BATCH)
            return list({lease.id: lease for lease in (*ended, *rest)}.values())[:_BATCH]

        return await self.world.database.read(unit)

    async def _close_tasks(self, now: datetime) -> None:
        """Tell of every ended task of which nothing is left."""
        drained = await self.world.database.read(lambda tx: tasks.drained_unsaid(tx, _BATCH))
        if not drained:
            return

        async def unit(tx: Transaction) -> int:
            closed = [task for task in drained if await tasks.say_drained(tx, task.id, now)]
            if closed:
                await events.append(tx, *(task_event(EventKind.TASK_CLOSED, task, now) for task in closed))
            return len(closed)

        if await self.world.database.write(unit, ending=True):
            self.world.feed.set()
        if len(drained) >= _BATCH:
            self.world.reaper.set()


async def _safely(work: object, lease: Lease) -> None:
    """One lease's trouble is no other's."""
    try:
        await work  # type: ignore[misc]
    except Problem as problem:
        _log.warning("a lease is looked at again later", lease=lease.id, target=lease.handle.target, error=problem)
