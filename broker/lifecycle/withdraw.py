"""A secret's end: access ended and verified, then nothing left; for as long as it takes.

    begin        active → revoking                      the decision to end it, durable
    drain        revoking → revoked | expired           disabled, cut, looked at; then cleaned up
    end          both

Ending never waits for a record (law 3): when the store can't take the first line, the outside is ended all the same and
recorded after. Every step is safe to repeat, at any point, by any process. Creates that went wrong: `doubt.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from broker.engines.protocol import AccessEnded
from broker.lifecycle import told
from broker.lifecycle.schedule import Course, backoff, may_still_appear_until
from broker.lifecycle.world import World
from broker.model.event import EventKind
from broker.model.ids import LeaseId
from broker.model.lease import CloseReason, Lease, LeaseEvent, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.role import NewAccess
from broker.store import events, leases, receipts, tasks
from ca.errors import Problem, Unavailable
from ca.runtime import failpoint, log
from ca.runtime.database import Transaction, Unit

_log = log.get(__name__)


async def begin(
    world: World,
    lease: LeaseId,
    reason: CloseReason,
    now: datetime,
    *,
    actor: str | None = None,
    trouble: str | None = None,
) -> Lease:
    """Decide that a lease ends; one that is ending or over stays as it is. The draining follows by itself.

    Of one that is just being made the wish is kept with it: whoever makes it finds it changed, and undoes it.

    Raises:
        NotFound: there is no such lease.
    """

    async def unit(tx: Transaction) -> Lease:
        found = await leases.get(tx, lease)
        if found.state is LeaseState.INTENDED and found.close_reason is None:
            words = f"to be ended while it was being made, by {actor or told.us(world)}"
            return await leases.keep(tx, found, close_reason=reason, due_at=now, trouble=trouble or words)
        if found.state is not LeaseState.ACTIVE:
            return found
        due = now if found.guarantee.revocable else max(now, found.until)
        changes: dict[str, Any] = {"close_reason": reason, "revoking_at": now, "due_at": now, "trouble": trouble}
        changes["end_due_at"] = found.end_due_at or due
        following = step(world, found, LeaseEvent.REVOKE, now, actor=actor, reason=str(reason), **changes)
        return await following(tx)

    failpoint.reach("withdraw.begin.before")
    begun = await world.database.write(unit, ending=True)
    failpoint.reach("withdraw.begin.after")
    tell(world)
    return begun


async def end(world: World, lease: Lease, reason: CloseReason, now: datetime, *, trouble: str | None = None) -> Lease:
    """Begin and drain. When the store can't take it, access is ended first and the failure raised after."""
    course = Course.of(world.clock, now)
    try:
        begun = await begin(world, lease.id, reason, now, trouble=trouble)
    except Unavailable:
        await cut_unrecorded(world, lease)
        raise
    return await drain(world, begun, course.now) if begun.state is LeaseState.REVOKING else begun


async def cut_unrecorded(world: World, lease: Lease) -> None:
    """End access to a lease without a word to the store, full or gone; it is done again once it can be told."""
    engine, calls = world.at(lease.handle.target)
    failpoint.reach("withdraw.cut_unrecorded.before")
    await calls.call(engine.end_access(lease.handle), ending=True)
    failpoint.reach("withdraw.cut_unrecorded.after")


async def drain(world: World, lease: Lease, now: datetime, *, answered: bool = False) -> Lease:
    """Do what is left to do for a revoking lease: end access, verify, clean up. Put off what can't be done now.

    `answered` says that its create came back to us: nothing of it is on the way any more.
    """
    course = Course.of(world.clock, now)
    if not lease.guarantee.revocable:
        return await _run_out(world, lease, now)
    try:
        if lease.access_ended_at is None:
            lease = await _end_access(world, lease, course)
        held = None if answered else may_still_appear_until(lease)
        if held is not None and course.now < held:
            return await wait(world, lease, held)
        return await _clean_up(world, lease, course)
    except Problem as problem:
        return await put_off(world, lease, problem, course.now)


async def _end_access(world: World, lease: Lease, course: Course) -> Lease:
    engine, calls = world.at(lease.handle.target)
    failpoint.reach("withdraw.end_access.before")
    ended: AccessEnded = await calls.call(engine.end_access(lease.handle), ending=True)
    failpoint.reach("withdraw.end_access.after")
    now = course.now

    async def unit(tx: Transaction) -> Lease:
        changed = await leases.keep(tx, lease, access_ended_at=now, trouble=None, broker=world.broker)
        facts = {"sessions_cut": ended.sessions_cut, "endpoints": ended.endpoints}
        said = told.receipt(ReceiptKind.LEASE_ACCESS_ENDED, changed, told.us(world), now, **facts)
        await receipts.append(tx, world.broker, said)
        root = await tasks.root_of(tx, lease.task)
        await events.append(tx, told.event(EventKind.LEASE_ACCESS_ENDED, changed, root, now, **facts))
        return changed

    failpoint.reach("withdraw.access_ended.before")
    changed = await world.database.write(unit, ending=True)
    failpoint.reach("withdraw.access_ended.after")
    world.feed.set()  # nothing new is due by this
    return changed


async def _clean_up(world: World, lease: Lease, course: Course) -> Lease:
    engine, calls = world.at(lease.handle.target)
    failpoint.reach("withdraw.clean_up.before")
    await calls.call(engine.clean_up(lease.handle), ending=True)
    failpoint.reach("withdraw.clean_up.after")
    unit = step(world, lease, LeaseEvent.GONE, course.now, closed_at=course.now, trouble=None)
    failpoint.reach("withdraw.gone.before")
    closed = await world.database.write(unit, ending=True)
    failpoint.reach("withdraw.gone.after")
    world.feed.set()  # nothing new is due by this
    return closed


async def _run_out(world: World, lease: Lease, now: datetime) -> Lease:
    """What can't be taken back closes as expired (law 5): at its last second; at once where only a rotation ends it.

    What was never handed over is known to nobody.
    """
    ended: datetime | None = lease.until
    if lease.activated_at is None:
        ended = now
    elif lease.guarantee.new_access is NewAccess.AT_ROTATION:
        ended = None
    elif now < lease.until:
        return await wait(world, lease, lease.until)
    unit = step(world, lease, LeaseEvent.RAN_OUT, now, access_ended_at=ended, closed_at=now)
    failpoint.reach("withdraw.ran_out.before")
    closed = await world.database.write(unit, ending=True)
    failpoint.reach("withdraw.ran_out.after")
    world.feed.set()  # nothing new is due by this
    return closed


async def wait(world: World, lease: Lease, until: datetime) -> Lease:
    """Nothing can be done for a lease before `until`."""
    failpoint.reach("withdraw.wait.before")
    waiting = await world.database.write(lambda tx: leases.keep(tx, lease, due_at=until), ending=True)
    failpoint.reach("withdraw.wait.after")
    return waiting


async def put_off(world: World, lease: Lease, problem: Problem, now: datetime) -> Lease:
    """Note that an ending could not be done yet, why, and when it is tried again: for ever, at growing intervals."""
    _log.warning("an ending is tried again", lease=lease.id, target=lease.handle.target, error=problem)
    later = now + backoff(lease.attempts)

    async def unit(tx: Transaction) -> Lease:
        changes: dict[str, Any] = {"attempts": lease.attempts + 1, "due_at": later, "trouble": str(problem)}
        return await leases.move(tx, lease, LeaseEvent.REFUSED, **changes)

    failpoint.reach("withdraw.put_off.before")
    refused = await world.database.write(unit, ending=True)
    failpoint.reach("withdraw.put_off.after")
    return refused


_SAID = {
    LeaseEvent.REVOKE: (ReceiptKind.LEASE_REVOKING, EventKind.LEASE_REVOKING),
    LeaseEvent.LOST: (ReceiptKind.LEASE_IN_DOUBT, EventKind.LEASE_REVOKING),
    LeaseEvent.OCCUPIED: (ReceiptKind.LEASE_REVOKING, EventKind.LEASE_REVOKING),
    LeaseEvent.ABANDONED: (ReceiptKind.LEASE_REVOKING, EventKind.LEASE_REVOKING),
    LeaseEvent.GONE: (ReceiptKind.LEASE_CLOSED, EventKind.LEASE_CLOSED),
    LeaseEvent.RAN_OUT: (ReceiptKind.LEASE_CLOSED, EventKind.LEASE_CLOSED),
    LeaseEvent.DISOWNED: (ReceiptKind.LEASE_CLOSED, EventKind.LEASE_CLOSED),
}


def step(
    world: World,
    lease: Lease,
    event: LeaseEvent,
    now: datetime,
    *,
    actor: str | None = None,
    reason: str | None = None,
    **changes: Any,
) -> Unit[Lease]:
    """One move of a lease with what is said of it."""
    recorded, announced = _SAID[event]

    async def unit(tx: Transaction) -> Lease:
        moved = await leases.move(tx, lease, event, **{"broker": world.broker, **changes})
        why = {"reason": reason or (None if moved.close_reason is None else str(moved.close_reason))}
        said = told.receipt(recorded, moved, actor or told.us(world), now, state=str(moved.state), **why)
        await receipts.append(tx, world.broker, said)
        root = await tasks.root_of(tx, moved.task)
        await events.append(tx, told.event(announced, moved, root, now, state=str(moved.state), **why))
        if moved.is_closed:  # after the counter of events: of two that close at once the second sees the first
            drained = await tasks.say_drained(tx, moved.task, now)
            if drained is not None:
                await events.append(tx, told.task_closed(drained, now))
        return moved

    return unit


def tell(world: World) -> None:
    """Wake who waits for what was just committed."""
    world.feed.set()
    world.reaper.set()
