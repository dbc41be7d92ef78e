"""The same request again, before its secret was acknowledged: another secret for the same principal.

The answer may have been lost on its way, and it is stored nowhere. So the old secret dies, whoever logged in with it is
cut, and a new one is handed over (traps 13). That it will be is durable before the target is asked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.engines.protocol import Issued
from broker.errors import NotPossible, UnderWay
from broker.lifecycle import told, withdraw
from broker.lifecycle.schedule import Course, longest_until, next_due
from broker.lifecycle.world import World
from broker.model.decision import Permit
from broker.model.lease import CloseReason, Lease, LeaseEvent, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.role import Role
from broker.store import leases, receipts, tasks
from ca.errors import Exhausted, NotFound, Problem, Stale, Unavailable
from ca.runtime import failpoint
from ca.runtime.database import Transaction

MOST = 32
"""Secrets one request is answered with: what was lost on its way so often is not lost, and each costs the target work
that no quota counts.
"""


async def begin_reissue(
    world: World, tx: Transaction, lease: Lease, *, permit: Permit, role: Role, now: datetime
) -> Lease:
    """Note, in a transaction that began with the fence, that the secret of `lease` is about to be replaced."""
    if lease.role != role.full_name:
        raise Stale("the earlier request was for another role")
    if lease.generation >= MOST:
        raise Exhausted(f"the same request was answered {MOST} times, and none was acknowledged", limit=MOST)
    changed = replace(lease, until=longest_until(world, lease, now), ack_by=now + role.ack_within)
    again = await leases.move(
        tx,
        lease,
        LeaseEvent.REISSUED,
        task_version=permit.task.version,
        generation=lease.generation + 1,
        until=changed.until,
        ack_by=changed.ack_by,
        due_at=next_due(world, changed),
        broker=world.broker,
    )
    said = told.receipt(ReceiptKind.LEASE_REISSUED, again, str(permit.caller), now)
    await receipts.append(tx, world.broker, told.decided(permit), said)
    return again


async def reissue(world: World, lease: Lease, role: Role, course: Course) -> tuple[Lease, Issued]:
    """Replace the secret, pass the fence again, and answer with the new one.

    Raises:
        Fenced, Stale: the task ended or changed, or another retry overtook this one.
        TargetDown, OutcomeUnknown: nothing was handed over; the same request may come again.
    """
    if lease.id in world.in_flight:
        raise UnderWay("the same request is being answered at this moment")
    world.in_flight.add(lease.id)
    try:
        issued = await _replace(world, lease, role, course)
        confirmed = await _confirmed(world, lease, course)
    finally:
        world.in_flight.discard(lease.id)
    return confirmed, issued


async def _replace(world: World, lease: Lease, role: Role, course: Course) -> Issued:
    engine, calls = world.at(lease.handle.target)
    try:
        failpoint.reach("reissue.replace.before")
        issued = await calls.call(engine.replace(lease.handle, role, lease.until, course.now + calls.deadline))
        failpoint.reach("reissue.replace.after")
    except NotFound:
        await withdraw.begin(world, lease.id, CloseReason.RAN_OUT, course.now, trouble="the principal was removed")
        raise Unavailable("what this request had made is gone from the target, ask again") from None
    except NotPossible:
        trouble = "its secret can't be replaced"
        await withdraw.begin(world, lease.id, CloseReason.NOT_ACKNOWLEDGED, course.now, trouble=trouble)
        raise Unavailable("what this request had made is taken back, ask again") from None
    return issued


async def _confirmed(world: World, lease: Lease, course: Course) -> Lease:
    """The lease, if the new secret may be handed over; one that came too late must not open what was ended before."""
    try:
        failpoint.reach("reissue.confirm.before")
        confirmed = await world.database.write(lambda tx: _confirm(world, tx, lease, course.now))
        failpoint.reach("reissue.confirm.after")
    except Problem:
        present = await world.database.read(lambda tx: leases.get(tx, lease.id))
        if present.state is not LeaseState.ACTIVE:
            await withdraw.cut_unrecorded(world, lease)
        raise
    return confirmed


async def _confirm(world: World, tx: Transaction, lease: Lease, now: datetime) -> Lease:
    line = await tasks.touch(tx, lease.task, lease.task_version, now)
    world.refuse_unrecorded(line)
    found = await leases.get(tx, lease.id)
    if found.generation != lease.generation or found.state is not lease.state:
        raise Stale("the lease ended, or another retry overtook this one")
    return found
