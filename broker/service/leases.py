"""Acknowledge, renew, give back, list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.lifecycle import withdraw
from broker.lifecycle.acknowledge import acknowledge, acknowledging
from broker.lifecycle.renew import renew as renew_lease
from broker.model.act import Act, Action
from broker.model.caller import Operator, Verb
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.task import Task
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import endings, leases, quarantine
from ca.errors import Conflict, NotFound, Problem, Stale
from ca.runtime import log
from ca.runtime.database import Transaction

_log = log.get(__name__)


async def received(gate: Gate, asked: Asked, lease: LeaseId) -> Lease:
    """The task says it received the secret. Raises NotFound, Fenced, NotPossible."""
    held, _ = await _mine(gate, asked, lease)
    return await acknowledge(gate.world, held.task, held.id, str(asked.caller), asked.now)


async def received_at_once(gate: Gate, asked: Asked, lease: Lease) -> None:
    """The answer was read to its end, by a caller for whom that is the acknowledgement (`?ack=received`)."""
    try:
        await acknowledge(gate.world, lease.task, lease.id, str(asked.caller), gate.world.clock.now())
    except Problem as problem:  # the answer is out already; what is not acknowledged is revoked in time
        _log.warning("an answer that was read could not be acknowledged", lease=lease.id, error=problem)


async def received_all(gate: Gate, task: Task, held: Sequence[LeaseId], now: datetime) -> Sequence[LeaseId]:
    """Acknowledge what a heartbeat lists; answers those that are not held any more, so that the agent forgets them."""
    gone: list[LeaseId] = []

    async def write(tx: Transaction) -> None:
        gone.clear()  # a unit may be run again
        for lease in held:
            try:
                known = await acknowledging(gate.world, task.id, lease, str(task.owner), now)(tx)
            except (NotFound, Conflict, Stale):  # whatever else is wrong is told, and nobody forgets anything
                gone.append(lease)
                continue
            if known.state is not LeaseState.ACTIVE:
                gone.append(lease)

    if held:
        await gate.world.database.write(write)
    return gone


async def renew(gate: Gate, asked: Asked, lease: LeaseId) -> Lease:
    """Move the end of a lease by its role's window, if the policies still allow it.

    Raises:
        NotFound, Denied, Refused, Fenced, TargetDown.
    """
    held, chain = await _mine(gate, asked, lease)
    await gate.watch(chain)
    observed = gate.usable(chain, asked.now)
    role = gate.role(held.role, held=True)
    act = Act(action=Action.RENEW, resource=role.full_name, sensitivity=role.sensitivity)
    permit = await gate.permit(asked.workload, chain, act, gate.facts(observed, role), asked.now)
    return await renew_lease(gate.world, held, asked.now, permit=permit)


async def give_back(gate: Gate, asked: Asked, lease: LeaseId) -> Lease:
    """Revoke one lease, for its task or for an operator; idempotent. Raises NotFound, Denied."""
    if isinstance(asked.caller, Operator):
        asked.demand(Verb.REVOKE_LEASES)
        reason = CloseReason.OPERATOR
    else:
        await _mine(gate, asked, lease)
        reason = CloseReason.ASKED
    begun = await withdraw.begin(gate.world, lease, reason, asked.now, actor=str(asked.caller))
    gate.world.reaper.set()
    return begun


async def of_task(gate: Gate, asked: Asked, task: TaskId) -> Sequence[Lease]:
    """Every lease a task was given. Raises NotFound, Denied."""
    await gate.readable(asked, task)
    return await gate.world.database.read(lambda tx: leases.by_task(tx, task))


async def page(gate: Gate, asked: Asked, after: LeaseId | None, limit: int, *, open_only: bool) -> Sequence[Lease]:
    """Leases of every task. Raises Denied."""
    asked.demand(Verb.READ_LEASES)
    return await gate.world.database.read(lambda tx: leases.page(tx, after=after, limit=limit, open_only=open_only))


async def overdue(gate: Gate, asked: Asked, after: LeaseId | None, limit: int) -> Sequence[Lease]:
    """Leases whose access should have ended and is not verified gone, those after one of them. Raises Denied."""
    asked.demand(Verb.READ_LEASES)

    async def unit(tx: Transaction) -> Sequence[Lease]:
        place = None if after is None else await leases.get(tx, after)
        return await endings.overdue(tx, asked.now, place, limit)

    return await gate.world.database.read(unit)


async def _mine(gate: Gate, asked: Asked, lease: LeaseId) -> tuple[Lease, tuple[Task, ...]]:
    """The lease, and the chain of its task, once the caller has proven that task (traps 18)."""
    gate.proofs.read(asked)  # before the lease is looked up, so that a broken one finds no leases
    try:
        found = await gate.world.database.read(lambda tx: leases.get(tx, lease))
        return found, await gate.proven(asked, found.task)
    except NotFound as error:
        raise NotFound("no such lease, or it is not yours", lease=lease) from error


async def quarantined(gate: Gate, asked: Asked) -> Sequence[quarantine.Quarantined]:
    """Rows of the store that can't be read and were set aside, at most a thousand. Raises Denied."""
    asked.demand(Verb.READ_LEASES)
    return await gate.world.database.read(quarantine.all_of)
