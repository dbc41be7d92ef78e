"""A create that is not wanted: certainly not made, perhaps made, or made too late.

never_made   intended → revoked                     nothing was sent
lost         intended → in_doubt                    nobody knows
settle       in_doubt → revoking, and drained       the name is occupied, or the create's time is over (traps 8)
abandon      intended → revoking                    refused, or made and not to be used
undo         abandon, and drained at once

Where a create is an upsert no name can be occupied: what arrives late makes what it finds anew. So access is ended, the
last moment at which it may arrive is waited for in doubt, and only then it is ended again, looked at and cleaned up.
What comes even later is found by the sweep, for its lease is closed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from broker.engines.protocol import Making
from broker.lifecycle import withdraw
from broker.lifecycle.schedule import Course, may_still_appear_until
from broker.lifecycle.world import World
from broker.model.lease import CloseReason, Lease, LeaseEvent, LeaseState
from broker.store import leases
from ca.errors import Problem
from ca.runtime import failpoint, log
from ca.runtime.database import Transaction

_log = log.get(__name__)

_AGAIN = timedelta(minutes=2)
"""How long what may still appear is left alone at most."""


async def never_made(world: World, lease: Lease, now: datetime) -> Lease:
    """Close an intent of which nothing was ever sent."""

    async def unit(tx: Transaction) -> Lease:
        abandoned = await leases.move(tx, await _present(tx, lease), LeaseEvent.ABANDONED, revoking_at=now)
        reason = CloseReason.NEVER_MADE
        step = withdraw.step(
            world, abandoned, LeaseEvent.GONE, now, close_reason=reason, access_ended_at=now, closed_at=now
        )
        return await step(tx)

    failpoint.reach("doubt.never_made.before")
    closed = await world.database.write(unit, ending=True)
    failpoint.reach("doubt.never_made.after")
    withdraw.tell(world)
    return closed


async def lost(world: World, lease: Lease, now: datetime) -> Lease:
    """Note that nobody knows whether an intent was carried out; the reaper settles it."""
    engine = world.engines.get(lease.handle.target)
    held = None if engine is None else may_still_appear_until(lease, engine.making)

    async def unit(tx: Transaction) -> Lease:
        changes: dict[str, Any] = {
            "due_at": now,
            "end_due_at": max(now, held or now),
            "trouble": "the create was not answered",
        }
        return await withdraw.step(world, await _present(tx, lease), LeaseEvent.LOST, now, **changes)(tx)

    failpoint.reach("doubt.lost.before")
    doubted = await world.database.write(unit, ending=True)
    failpoint.reach("doubt.lost.after")
    withdraw.tell(world)
    return doubted


async def settle(world: World, lease: Lease, now: datetime) -> Lease:
    """Make an in-doubt lease certain, then drain it; put off when the target does not answer."""
    course = Course.of(world.clock, now)
    try:
        engine, _ = world.at(lease.handle.target)
        if engine.making is Making.UPSERT:
            held = may_still_appear_until(lease, engine.making)
            if held is not None and course.now < held:
                return await _end_and_wait(world, lease, held, course.now)
        else:
            await _occupy(world, lease)
    except Problem as problem:
        return await withdraw.put_off(world, lease, problem, course.now)
    return await _certain(world, lease, course)


async def _occupy(world: World, lease: Lease) -> None:
    engine, calls = world.at(lease.handle.target)
    failpoint.reach("doubt.occupy.before")
    await calls.call(engine.occupy(lease.handle), ending=True)
    failpoint.reach("doubt.occupy.after")


async def _end_and_wait(world: World, lease: Lease, until: datetime, now: datetime) -> Lease:
    """End what may be there by now, and stay in doubt: that is no proof of what may still come, so look again."""
    engine, calls = world.at(lease.handle.target)
    failpoint.reach("doubt.end_access.before")
    await calls.call(engine.end_access(lease.handle), ending=True)
    failpoint.reach("doubt.end_access.after")
    return await withdraw.wait(world, lease, min(until, now + _AGAIN))


async def _certain(world: World, lease: Lease, course: Course) -> Lease:
    unit = withdraw.step(
        world,
        lease,
        LeaseEvent.OCCUPIED,
        course.now,
        close_reason=lease.close_reason or CloseReason.NEVER_MADE,
        revoking_at=course.now,
        due_at=course.now,
    )
    failpoint.reach("doubt.occupied.before")
    occupied = await world.database.write(unit, ending=True)
    failpoint.reach("doubt.occupied.after")
    return await withdraw.drain(world, occupied, course.now)


async def abandon(world: World, lease: Lease, now: datetime, trouble: str) -> Lease:
    """Give an intent up that the target refused, or that must not be used; what is there, if anything, is removed."""

    async def unit(tx: Transaction) -> Lease:
        present = await _present(tx, lease)
        reason = present.close_reason or CloseReason.NEVER_MADE
        moments: dict[str, Any] = dict.fromkeys(("revoking_at", "due_at", "end_due_at"), now)
        step = withdraw.step(world, present, LeaseEvent.ABANDONED, now, close_reason=reason, trouble=trouble, **moments)
        return await step(tx)

    failpoint.reach("doubt.abandon.before")
    abandoned = await world.database.write(unit, ending=True)
    failpoint.reach("doubt.abandon.after")
    withdraw.tell(world)
    return abandoned


async def undo(world: World, lease: Lease, now: datetime, trouble: str) -> None:
    """Take back what was just made and may not be used, now; the reaper goes on if that fails."""
    course = Course.of(world.clock, now)
    try:
        abandoned = await abandon(world, lease, now, trouble)
    except Problem:
        try:
            await withdraw.cut_unrecorded(world, lease)
        except Problem as problem:
            _log.warning("what must not be used could not be ended yet", lease=lease.id, error=problem)
        return
    await withdraw.drain(world, abandoned, course.now, answered=True)


async def _present(tx: Transaction, lease: Lease) -> Lease:
    """An intent as it stands now: somebody may have asked for its end since it was read; otherwise as it was read."""
    found = await leases.get(tx, lease.id)
    return found if found.state is LeaseState.INTENDED else lease
