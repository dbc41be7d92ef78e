"""What may be read of tasks: one's own tree; operators by verb (traps 18)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.lifecycle.report import report as make_report
from broker.model.caller import Operator, Verb
from broker.model.ids import TaskId
from broker.model.report import Report
from broker.model.task import Task
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import tasks
from ca.errors import Denied


async def task_page(
    gate: Gate, asked: Asked, after: TaskId | None, limit: int, *, live: bool = False
) -> Sequence[Task]:
    """Tasks in the order of their birth: all for an operator, those bound to it for a process. Raises Denied."""
    if isinstance(asked.caller, Operator):
        asked.demand(Verb.READ_TASKS)
        return await gate.world.database.read(lambda tx: tasks.page(tx, after=after, limit=limit, live=live))
    instance = asked.workload.instance
    if instance is None:
        raise Denied("only a process our attestor knows has a list of its own, ask for a task by its id")
    mine = await gate.world.database.read(lambda tx: tasks.by_instance(tx, instance))
    return [task for task in mine if task.id > (after or "")][:limit]


async def tree(gate: Gate, asked: Asked, task: TaskId) -> Sequence[Task]:
    """A task and everything below it, parents first. Raises NotFound, Denied."""
    top = (await gate.readable(asked, task))[-1]
    inside: dict[TaskId, Task] = {}
    for link in await gate.world.database.read(lambda tx: tasks.tree(tx, top.root)):
        if link.id == task or link.parent in inside:
            inside[link.id] = link
    return list(inside.values())


async def report(gate: Gate, asked: Asked, task: TaskId) -> Report:
    """The closing report. Raises NotFound, Denied."""
    await gate.readable(asked, task)
    now: datetime = asked.now
    return await gate.world.database.read(lambda tx: make_report(tx, task, now, gate.world.points))
