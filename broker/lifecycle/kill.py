"""An operator's kill: thousands of tasks, a batch of them in one transaction, until none that it names is left.

Each batch is an ending like any other (`end_task.py`): what hangs on a task ends with it, and a store that is full
holds nothing up. Whoever opens tasks meanwhile does not keep a kill going: it names those that were there when it was
asked for.
"""

from __future__ import annotations

from datetime import datetime

from broker.lifecycle import end_task
from broker.lifecycle.world import UnrecordedEnd, World
from broker.model.ids import TaskId
from broker.model.kill import Kill, Killed
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.task import EndReason, TaskEvent
from broker.store import kills
from ca.runtime import log

_log = log.get(__name__)

BATCH = 100
"""Tasks that are named, ended in one transaction with all that is below them."""


async def kill(
    world: World, what: Kill, *, words: str | None, actor: str, now: datetime, most: int | None = None
) -> Killed:
    """End what `what` names, at most so many; it is finished even when whoever asked goes away."""
    return await world.finish(_kill(world, what, words, actor, now, most))


async def _kill(  # noqa: PLR0917 - as `kill`
    world: World, what: Kill, words: str | None, actor: str, now: datetime, most: int | None
) -> Killed:
    ended: list[TaskId] = []
    place: TaskId | None = None
    named = unrecorded = 0
    newest = await world.database.read(lambda tx: kills.newest(tx, what))
    born_by = max(now, newest or now)  # another broker's clock may be ahead of ours, and ours may have been set back
    while most is None or named < most:
        limit = BATCH if most is None else min(BATCH, most - named)
        batch = await world.database.read(lambda tx, at=place: kills.named(tx, what, born_by, at, limit))  # type: ignore[misc] # noqa: B023
        if not batch:
            break
        said = [_said(task, words, actor, now) for task in batch]
        begun = None if named else _begun(what, words, actor, now)
        ended += [task.id for task in await end_task.end_all(world, said, also=begun)]
        place, named = batch[-1], named + len(batch)
        unrecorded += sum(task in world.unrecorded for task in batch)
        _log.info("tasks are being killed", what=str(what), ended=len(ended))
    left = await world.database.read(lambda tx: kills.count(tx, what, born_by))
    return Killed(ended=tuple(ended), left=max(0, left - unrecorded))


def _said(task: TaskId, words: str | None, actor: str, now: datetime) -> UnrecordedEnd:
    return UnrecordedEnd(task=task, event=TaskEvent.CANCEL, reason=EndReason.OPERATOR, words=words, actor=actor, at=now)


def _begun(what: Kill, words: str | None, actor: str, now: datetime) -> Receipt:
    body = {"reach": str(what.reach), "name": what.name, "words": words}
    return Receipt(kind=ReceiptKind.KILLED, at=now, actor=actor, body=body)
