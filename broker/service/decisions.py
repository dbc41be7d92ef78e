"""May this act be done? A decision an agent asks about itself is advice (traps 14): nothing is made by it."""

from __future__ import annotations

from collections.abc import Sequence

from broker.lifecycle import told
from broker.model.act import Action
from broker.model.decision import Decision
from broker.model.ids import TaskId
from broker.model.receipt import ReceiptKind
from broker.model.role import Role
from broker.model.scope import Sensitivity
from broker.model.task import Task
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import receipts
from broker.wire.decisions import AskDecision
from ca.errors import Exhausted
from ca.runtime.database import Transaction


async def decide(gate: Gate, asked: Asked, ask: AskDecision) -> Decision:
    """Decide an act of a task and record the answer, whichever it is.

    Raises:
        NotFound: not the caller's task.
        Denied: the task may be given nothing now.
        Exhausted: a budget of decisions, its own or one above it, is used up.
    """
    task = TaskId(ask.task)
    chain = await gate.proven(asked, task)
    await gate.watch(chain)
    observed = gate.usable(chain, asked.now)
    role = gate.role(ask.resource, held=ask.action is Action.RENEW) if _is_known(gate, ask) else None
    act = ask.to_act(_sensitivity(role))
    decision = gate.decide(asked.workload, chain, act, gate.facts(observed, role), asked.now)
    receipt = told.decision(asked.caller, task, act, decision, advice=True)

    async def write(tx: Transaction) -> None:
        await _spend(tx, chain)
        await receipts.append(tx, gate.world.broker, receipt)

    await gate.world.database.write(write)
    return decision


def _is_known(gate: Gate, ask: AskDecision) -> bool:
    return ask.action in {Action.OBTAIN, Action.RENEW} and ask.resource in gate.world.roles


async def _spend(tx: Transaction, chain: Sequence[Task]) -> None:
    """A task's budget is one for it and all below it."""
    for link in chain:
        most = link.scope.budget.decisions
        if most is not None and await receipts.count(tx, ReceiptKind.DECIDED, link.id) >= most:
            raise Exhausted(f"the task `{link.id}` with all below it may ask for {most} decisions, and did", limit=most)


def _sensitivity(role: Role | None) -> Sensitivity:
    """What the broker knows of the resource; of a tool it knows nothing, and unknown is the highest."""
    return Sensitivity.RESTRICTED if role is None else role.sensitivity
