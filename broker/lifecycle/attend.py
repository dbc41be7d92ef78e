"""What one lease needs at this moment, whatever state it was left in."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.errors import ClockUntrusted, Fenced, OutcomeUnknown, TargetDown
from broker.lifecycle import doubt, withdraw
from broker.lifecycle.renew import renew
from broker.lifecycle.restamp import restamp
from broker.lifecycle.schedule import backoff
from broker.lifecycle.world import World
from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.task import Task
from broker.store import leases, tasks
from ca.runtime import failpoint

_WHILE_DOWN = timedelta(seconds=15)
"""How long a lease that only wants to be renewed is let be while its target does not answer."""


async def attend(world: World, lease: Lease, now: datetime, *, quarantined: bool = False) -> None:
    """Do the next thing for `lease`; one that a call of this process holds is left to that call.

    While its target is `quarantined`, what only our own memory says has run out, or was not received, is not ended.
    """
    if lease.id in world.in_flight:
        return
    if lease.state is LeaseState.INTENDED:
        lease = await doubt.lost(world, lease, now)
    if lease.state is LeaseState.IN_DOUBT:
        await doubt.settle(world, lease, now)
    elif lease.state is LeaseState.REVOKING:
        await withdraw.drain(world, lease, now)
    elif lease.state is LeaseState.ACTIVE:
        await _attend_active(world, lease, now, quarantined=quarantined)


async def note(world: World, lease: Lease, now: datetime, *, quarantined: bool = False) -> None:
    """What can be done for a lease whose target does not answer: its end is decided and told; the rest waits."""
    if lease.id in world.in_flight:
        return
    if lease.state is LeaseState.INTENDED:
        await doubt.lost(world, lease, now)
    if lease.state is not LeaseState.ACTIVE:
        return
    line = await world.database.read(lambda tx: tasks.chain(tx, lease.task))
    reason = _over(world, lease, list(line), now)
    if reason is not None and not (quarantined and _may_be_wrong(lease, reason, now)):
        await withdraw.begin(world, lease.id, reason, now)
        return
    bounds = [lease.until] if lease.acknowledged_at is not None else [lease.until, lease.ack_by]
    await _again_at(world, lease, min([now + _WHILE_DOWN, *(bound for bound in bounds if bound > now)]))


def _may_be_wrong(lease: Lease, reason: CloseReason, now: datetime) -> bool:
    """Whether a store that was put back may not know better: renewals and acknowledgements since are forgotten."""
    return reason in {CloseReason.NOT_ACKNOWLEDGED, CloseReason.RAN_OUT} and now < lease.last


async def _keep(world: World, lease: Lease, now: datetime) -> None:
    """Renew what may have been renewed before; one whose principal is gone is closed by that."""
    role = world.roles.get(lease.role)
    if role is not None and lease.until < lease.last and now >= lease.until - role.ttl / 2:
        await _renew(world, lease, now)
    else:
        await _again_at(world, lease, now + _WHILE_DOWN)


async def _attend_active(world: World, lease: Lease, now: datetime, *, quarantined: bool) -> None:
    line = await world.database.read(lambda tx: tasks.chain(tx, lease.task))
    reason = _over(world, lease, list(line), now)
    if reason is not None and quarantined and _may_be_wrong(lease, reason, now):
        await _keep(world, lease, now)
    elif reason is not None:
        await withdraw.end(world, lease, reason, now)
    elif lease.task_version != line[-1].version:
        await restamp(world, lease, now)
    elif lease.role in world.roles and lease.until < lease.last:
        await _renew(world, lease, now)
    else:
        await _again_at(world, lease, lease.until)


def _over(world: World, lease: Lease, line: list[Task], now: datetime) -> CloseReason | None:
    if any(not link.is_live or link.id in world.unrecorded for link in line):
        return CloseReason.TASK_ENDED
    if lease.acknowledged_at is None and now >= lease.ack_by and not lease.is_identity:
        return CloseReason.NOT_ACKNOWLEDGED
    return CloseReason.RAN_OUT if now >= lease.until else None


async def _renew(world: World, lease: Lease, now: datetime) -> None:
    try:
        await renew(world, lease, now)
    except (TargetDown, OutcomeUnknown):
        return  # noted with the lease, and tried again
    except (Fenced, ClockUntrusted):
        await _again_at(world, lease, min(lease.until, now + backoff(lease.attempts + 2)))


async def _again_at(world: World, lease: Lease, moment: datetime) -> None:
    failpoint.reach("attend.again.before")
    await world.database.write(lambda tx: leases.keep(tx, lease, due_at=moment), ending=True)
    failpoint.reach("attend.again.after")
