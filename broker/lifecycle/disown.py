"""A target is gone for good: what was made there can't be verified to have ended, and two operators say so (traps 33).

    propose      durable, stands for an hour
    give_up      by another operator: every lease it is about closes as `disowned`, which is not `revoked`

Nothing is claimed of the outside: reports, receipts and events say *not verified*. Should the target come back, the
sweep finds what is left there under the names of closed leases, and destroys it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from broker.errors import NotPossible
from broker.lifecycle import told, withdraw
from broker.lifecycle.world import World
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import CloseReason, Lease, LeaseEvent, LeaseState
from broker.model.receipt import Receipt, ReceiptKind
from broker.store import disownings, endings, events, leases, operators, quarantine, receipts, tasks
from broker.store.disownings import Proposal
from ca.errors import Denied, NotFound
from ca.runtime import failpoint
from ca.runtime.clock import micros
from ca.runtime.database import Transaction, Unit

_BATCH = 100
"""Leases that are given up in one transaction."""


async def propose(world: World, what: str, by: str, now: datetime) -> Proposal:
    """Write down that `by` wants to give up `what`; one of another operator that still stands is not replaced."""

    async def unit(tx: Transaction) -> Proposal:
        known = await disownings.find(tx, what)
        if known is not None and known.stands(now) and known.by != by:
            return known
        proposal = Proposal(what=what, by=by, at=now)
        await disownings.put(tx, proposal)
        await receipts.append(tx, world.broker, _receipt(ReceiptKind.DISOWN_PROPOSED, what, by, now))
        return proposal

    failpoint.reach("disown.propose.before")
    proposal = await world.database.write(unit)
    failpoint.reach("disown.propose.after")
    return proposal


async def give_up(world: World, what: str, by: str, now: datetime) -> int:
    """Close what was proposed, batch by batch; answers how many leases.

    Raises:
        NotFound: nobody proposed it within the hour, or there is no such lease.
        Denied: whoever proposed it can't confirm it, nor can an operator who was added since.
        NotPossible: the lease is in use, or over.
    """
    given_up = 0
    while True:
        failpoint.reach("disown.give_up.before")
        count = await world.database.write(_giving_up(world, what, by, now))
        failpoint.reach("disown.give_up.after")
        given_up += count
        withdraw.tell(world)
        if count < _BATCH:
            return given_up


def _giving_up(world: World, what: str, by: str, now: datetime) -> Unit[int]:
    async def unit(tx: Transaction) -> int:
        proposal = await _second(tx, what, by, now)
        one = what.startswith("lease:")
        blind = await quarantine.give_up(tx, what, micros(now)) if one else ()
        found = [] if blind else await _meant(tx, what)
        for lease in found:
            await _close(world, tx, lease, (proposal.by, by), now)
        if len(found) < _BATCH:
            blind = (
                blind if one else await quarantine.give_up(tx, what, micros(now))
            )  # with the receipt that counts them
            await disownings.forget(tx, what)
            facts: dict[str, Any] = {"proposed_by": proposal.by, "verified": False, "unreadable": len(blind)}
            await receipts.append(tx, world.broker, _receipt(ReceiptKind.DISOWNED, what, by, now, **facts))
        drained = [await tasks.say_drained(tx, TaskId(task), now) for _, task in blind]
        if closed := [told.task_closed(one, now) for one in drained if one is not None]:
            await events.append(tx, *closed)
        return len(found)

    return unit


async def _second(tx: Transaction, what: str, by: str, now: datetime) -> Proposal:
    """The proposal, if `by` may confirm it: somebody else, who was there before it was made."""
    proposal = await disownings.find(tx, what)
    if proposal is None or not proposal.stands(now):
        raise NotFound("nobody proposed to give this up within the last hour, the first of two operators has to")
    if proposal.by == by:
        raise Denied(f"`{by}` proposed it: a second operator has to confirm that it is given up unverified")
    added = await operators.added_at(tx, by)
    if added is not None and added > proposal.at:
        raise Denied(f"`{by}` was added after it was proposed, somebody who was an operator before has to confirm")
    return proposal


async def _meant(tx: Transaction, what: str) -> Sequence[Lease]:
    kind, _, name = what.partition(":")
    if kind == "target":
        return await endings.open_at(tx, name, _BATCH)
    lease = await leases.get(tx, LeaseId(name))
    if lease.state not in {LeaseState.REVOKING, LeaseState.IN_DOUBT}:
        raise NotPossible(f"a lease that is `{lease.state}` is not given up: only one whose end can't be verified")
    return [lease]


async def _close(world: World, tx: Transaction, lease: Lease, doers: tuple[str, str], now: datetime) -> None:
    """What is still in use at a target that is gone has its end decided in the same breath."""
    actor = f"operator:{doers[1]}"
    if lease.state is LeaseState.ACTIVE:
        due = lease.end_due_at or now
        ending: dict[str, Any] = {"close_reason": CloseReason.OPERATOR, "revoking_at": now, "end_due_at": due}
        step = withdraw.step(world, lease, LeaseEvent.REVOKE, now, actor=actor, **ending)
        lease = await step(tx)
    if lease.state is LeaseState.INTENDED:
        step = withdraw.step(world, lease, LeaseEvent.LOST, now, end_due_at=now)
        lease = await step(tx)
    changes: dict[str, Any] = {
        "close_reason": lease.close_reason or CloseReason.OPERATOR,
        "closed_at": now,
        "trouble": f"given up by {doers[0]} and {doers[1]}: its end is not verified",
    }
    step = withdraw.step(world, lease, LeaseEvent.DISOWNED, now, actor=actor, **changes)
    await step(tx)


def _receipt(kind: ReceiptKind, what: str, by: str, now: datetime, **more: str | bool) -> Receipt:
    lease = LeaseId(what.removeprefix("lease:")) if what.startswith("lease:") else None
    return Receipt(kind=kind, at=now, actor=f"operator:{by}", lease=lease, body={"what": what, **more})
