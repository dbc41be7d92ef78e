"""May this act be done? A decision an agent asks about itself is advice (traps 14): nothing is made by it."""

from __future__ import annotations

from broker.model.act import Act, Action
from broker.model.decision import Decision
from broker.model.ids import TaskId
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.role import Role
from broker.model.scope import Sensitivity
from broker.service.gate import Gate, decided
from broker.service.proofs import Asked
from broker.store import receipts
from broker.wire.decisions import AskDecision
from ca.runtime.database import Transaction


async def decide(gate: Gate, asked: Asked, ask: AskDecision) -> Decision:
    """Decide an act of a task and record the answer, whichever it is.

    Raises:
        NotFound: not the caller's task.
        Denied: the task may be given nothing now.
    """
    task = TaskId(ask.task)
    chain = await gate.proven(asked, task)
    observed = gate.usable(chain, asked.now)
    role = gate.world.roles.get(ask.resource) if ask.action in {Action.OBTAIN, Action.RENEW} else None
    act = ask.to_act(_sensitivity(role))
    decision = gate.decide(asked.workload, chain, act, gate.facts(observed, role), asked.now)
    await _record(gate, asked, task, act, decision)
    return decision


def _sensitivity(role: Role | None) -> Sensitivity:
    """What the broker knows of the resource; of a tool it knows nothing, and unknown is the highest."""
    return Sensitivity.RESTRICTED if role is None else role.sensitivity


async def _record(gate: Gate, asked: Asked, task: TaskId, act: Act, decision: Decision) -> None:
    body = {**decided(act, decision), "advice": True}
    receipt = Receipt(kind=ReceiptKind.DECIDED, at=asked.now, actor=str(asked.caller), task=task, body=body)

    async def write(tx: Transaction) -> None:
        await receipts.append(tx, gate.world.broker, receipt)

    await gate.world.database.write(write)
