"""Reading the audit, the events and what enforcement points confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from broker.audit.chain import Head
from broker.events.confirmations import confirm as confirm_epoch
from broker.model.caller import Operator, Verb, Workload
from broker.model.event import Epoch
from broker.model.ids import TaskId
from broker.model.receipt import Entry
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import checkpoints, confirmations, events, receipts
from ca.errors import Denied
from ca.runtime.database import Transaction


async def page(gate: Gate, asked: Asked, after: tuple[str, int] | None, limit: int) -> Sequence[Entry]:
    """A page of every writer's chain. Raises Denied."""
    asked.demand(Verb.READ_AUDIT)
    return await gate.world.database.read(lambda tx: receipts.page(tx, after=after, limit=limit))


async def heads(gate: Gate, asked: Asked) -> Sequence[tuple[Head, Head]]:
    """Where each writer's chain ends, and the last entry that is not kept any more. Raises Denied."""
    asked.demand(Verb.READ_AUDIT)

    async def unit(tx: Transaction) -> Sequence[tuple[Head, Head]]:
        cuts = await checkpoints.all_of(tx)
        return [(head, cuts.get(head.writer, Head.empty(head.writer))) for head in await receipts.heads(tx)]

    return await gate.world.database.read(unit)


async def of_task(gate: Gate, asked: Asked, task: TaskId) -> Sequence[Entry]:
    """What is recorded about one task, for whoever proves it or a task above it. Raises NotFound, Denied."""
    if isinstance(asked.caller, Operator):
        asked.demand(Verb.READ_AUDIT)
    await gate.readable(asked, task)
    return await gate.world.database.read(lambda tx: receipts.of_task(tx, task))


async def root_of(gate: Gate, asked: Asked, task: TaskId | None) -> TaskId | None:
    """Whose events a reader may see: None is everybody's, for operators and the enforcement points that are registered.

    Any other workload names a task it proves.

    Raises:
        Denied: an operator without the verb, or a workload that names no task.
        NotFound: not its task.
    """
    if task is None:
        if not (isinstance(asked.caller, Workload) and str(asked.caller) in gate.world.points):
            asked.demand(Verb.READ_EVENTS)
        return None
    if isinstance(asked.caller, Operator):
        asked.demand(Verb.READ_EVENTS)
    return (await gate.readable(asked, task))[-1].root


async def epoch(gate: Gate) -> Epoch:
    """The newest event."""
    return await gate.world.database.read(events.epoch)


async def confirm(gate: Gate, asked: Asked, said: Epoch) -> str:
    """Keep an enforcement point's own claim of what it has applied; answers who it is.

    Raises:
        Denied: points are registered, and the caller is none of them.
        Stale: there is no such event, or it is of another incarnation: begin anew with `GET /v1/events`.
    """
    if isinstance(asked.caller, Operator):
        asked.demand(Verb.CONFIRM_EPOCHS)
    point = str(asked.caller)
    if gate.world.points and point not in gate.world.points and isinstance(asked.caller, Workload):
        raise Denied("only the enforcement points that are registered here confirm epochs")
    await confirm_epoch(gate.world.database, point, said, asked.now)
    return point


async def confirmed(gate: Gate, asked: Asked) -> Sequence[confirmations.Said]:
    """What each point said last. Raises Denied."""
    asked.demand(Verb.READ_EVENTS)
    return await gate.world.database.read(confirmations.all_of)
