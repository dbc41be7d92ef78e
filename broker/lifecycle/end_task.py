"""A task's end: one transaction for it and everything below it; the rest is draining.

State, version, receipts, what other parties must be told, and the events are written together, so from the commit on
nothing that was decided before can be used (law 1). No lease is touched here: ten thousand of them end with one row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.lifecycle import told, withdraw
from broker.lifecycle.world import UnrecordedEnd, World
from broker.model.event import Event, EventKind
from broker.model.ids import TaskId
from broker.model.lease import Lease
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.task import ENDING_EVENT, EndReason, Task, TaskEvent, after
from broker.store import events, leases, outbox, receipts, tasks
from broker.store.outbox import Message
from ca.errors import NotFound, Problem, Unavailable
from ca.runtime import failpoint, log
from ca.runtime.database import Transaction, Unit

_log = log.get(__name__)


async def end(
    world: World,
    task: TaskId,
    *,
    reason: EndReason,
    event: TaskEvent | None = None,
    words: str | None = None,
    actor: str | None = None,
    now: datetime,
) -> Sequence[Task]:
    """End `task` and everything below it; answers those that ended with this call, none if it had ended before.

    Raises:
        NotFound: there is no such task.
    """
    said = UnrecordedEnd(
        task=task,
        event=event or ENDING_EVENT[reason],
        reason=reason,
        words=words,
        actor=actor or told.us(world),
        at=now,
    )
    try:
        return await record(world, said)
    except Unavailable as unavailable:
        _log.error("a task's end can't be recorded, its access is ended all the same", task=task, error=unavailable)
        return await world.finish(_end_unrecorded(world, said))


def because(world: World, task: TaskId, reason: EndReason, now: datetime) -> UnrecordedEnd:
    """An end nobody said, for `end_all`."""
    event = ENDING_EVENT[reason]
    return UnrecordedEnd(task=task, event=event, reason=reason, words=None, actor=told.us(world), at=now)


async def end_all(world: World, said: Sequence[UnrecordedEnd], *, also: Receipt | None = None) -> Sequence[Task]:
    """End several tasks and everything below them in one transaction; `also` is written with the first that ends.

    Raises:
        NotFound: one of them was never there; none ended.
    """
    if not said:
        return ()
    try:
        return await record(world, *said, also=also)
    except Unavailable as unavailable:
        _log.error("the end of tasks can't be recorded, their access is ended all the same", error=unavailable)
        ended: list[Task] = []
        for one in said:
            ended += await world.finish(_end_unrecorded(world, one))
        return ended


async def record(world: World, *said: UnrecordedEnd, also: Receipt | None = None) -> Sequence[Task]:
    """Write endings, in one transaction. Raises NotFound, Unavailable."""
    failpoint.reach("end_task.commit.before")
    ended = await world.database.write(_ending(world, said, also), ending=True)
    failpoint.reach("end_task.commit.after")
    for one in said:
        world.unrecorded.pop(one.task, None)
    for wake in (world.feed, world.reaper, world.outbox):
        wake.set()
    return ended


def _ending(world: World, said: Sequence[UnrecordedEnd], also: Receipt | None) -> Unit[Sequence[Task]]:
    async def unit(tx: Transaction) -> Sequence[Task]:
        ended: list[tuple[Task, UnrecordedEnd]] = []
        for one in said:
            await tasks.get(tx, one.task)
            below = await tasks.end_tree(tx, one.task, one.event, reason=one.reason, words=one.words, now=one.at)
            ended += [(task, one) for task in below]
        if not ended:
            return ()
        first = () if also is None else (also,)
        await receipts.append(tx, world.broker, *first, *(_receipt(task, one) for task, one in ended))
        for task, one in ended:
            for party in world.parties:
                await outbox.add(tx, _message(task, party), one.at)
        await events.append(tx, *(_event(task, one) for task, one in ended))
        return [task for task, _ in ended]

    return unit


def _receipt(task: Task, said: UnrecordedEnd) -> Receipt:
    body = {
        "state": str(task.state),
        "version": task.version,
        "reason": str(task.end_reason),
        "words": task.end_words,
        "with": said.task,
    }
    return Receipt(kind=ReceiptKind.TASK_ENDED, at=said.at, actor=said.actor, task=task.id, body=body)


def _event(task: Task, said: UnrecordedEnd) -> Event:
    return told.task_event(
        EventKind.TASK_ENDED, task, said.at, reason=str(task.end_reason), words=task.end_words, parent=task.parent
    )


def _message(task: Task, party: str) -> Message:
    body = {"task": task.id, "instance": task.instance, "version": task.version}
    return Message(id=f"{party}:{task.id}:ended", party=party, kind="task.ended", body=body)


async def _end_unrecorded(world: World, said: UnrecordedEnd) -> Sequence[Task]:
    """Fence in memory, end access outside, and leave the writing to the reaper, which tries at every tick."""
    line = await world.database.read(lambda tx: _tree(tx, said.task))
    if not line:
        raise NotFound("there is no such task")
    for task in line:
        world.unrecorded[task.id] = replace(said, task=task.id)
    await cut_unrecorded(world, line)
    world.reaper.set()
    return [
        replace(task, state=after(task.state, said.event), version=task.version + 1, ended_at=said.at)
        for task in line
        if task.is_live
    ]


async def cut_unrecorded(world: World, ended: Sequence[Task]) -> None:
    """End access to everything these tasks hold, without the store; a target that does not answer delays no other."""
    held: dict[str, list[Lease]] = {}
    for task in ended:
        for lease in await world.database.read(lambda tx, task=task: leases.open_of(tx, task.id)):  # type: ignore[misc]
            held.setdefault(lease.handle.target, []).append(lease)
    await asyncio.gather(*(_cut_at_one(world, there) for there in held.values()))


async def _cut_at_one(world: World, held: Sequence[Lease]) -> None:
    for lease in held:
        try:
            await withdraw.cut_unrecorded(world, lease)
        except Problem as problem:
            _log.warning("access could not be ended yet", lease=lease.id, error=problem)


async def _tree(tx: Transaction, task: TaskId) -> Sequence[Task]:
    """The task and what is below it, parents first."""
    top = await tasks.get(tx, task)
    whole = await tasks.tree(tx, top.root)
    line, level = [top], {top.id}
    while level:
        below = [link for link in whole if link.parent in level]
        level = {link.id for link in below}
        line += below
    return line
