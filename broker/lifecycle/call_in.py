"""The leases of ended tasks fall due, batch by batch: an ending itself touches none of them.

From the commit of its end a task's leases have no authority; here each gets its place in the line of its target
(`store/endings.py`). An ended task that has no open lease is closed in the same breath.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.lifecycle import told
from broker.lifecycle.world import World
from broker.model.event import Event
from broker.model.ids import TaskId
from broker.store import endings, events, tasks
from broker.store.endings import Called
from ca.errors import Problem
from ca.runtime import failpoint, log
from ca.runtime.database import Transaction, Unit

_log = log.get(__name__)

_TASKS, _ROWS = 50, 1000
"""Tasks and leases in one transaction, at most."""


async def call_in(world: World, now: datetime) -> Sequence[Called]:
    """Call in what is to be; answers the tasks whose leases can't be, because the store takes nothing now."""
    places: dict[TaskId, int] = {}
    while batch := await world.database.read(lambda tx: endings.to_call(tx, _TASKS)):
        try:
            failpoint.reach("call_in.commit.before")
            called = await world.database.write(_calling(batch, places, now), ending=True)
            failpoint.reach("call_in.commit.after")
        except Problem as problem:
            _log.warning("the leases of ended tasks could not be called in", tasks=len(batch), error=problem)
            return batch
        for task, rows in called.items():
            places[task] = places.get(task, 0) + rows
        world.feed.set()
    return ()


def _calling(batch: Sequence[Called], places: dict[TaskId, int], now: datetime) -> Unit[dict[TaskId, int]]:
    async def unit(tx: Transaction) -> dict[TaskId, int]:
        done: dict[TaskId, int] = {}
        closed: list[Event] = []
        left = _ROWS
        for called in batch:
            past = replace(called, ended_at=min(called.ended_at, now))  # the clock may have been set back since
            rows = await endings.call_in(tx, past, left, places.get(called.task, 0))
            done[called.task] = rows
            if rows >= left:
                break  # there may be more of this one
            left -= rows
            await endings.say_called(tx, called.task, now)
            drained = await tasks.say_drained(tx, called.task, now)
            closed += [] if drained is None else [told.task_closed(drained, now)]
        if closed:
            await events.append(tx, *closed)
        return done

    return unit
