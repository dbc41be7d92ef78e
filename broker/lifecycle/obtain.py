"""A secret comes to be: decided → intended (durable) → created → activated → handed over once.

Nothing is made outside before its name is durable inside (law 2), and no secret leaves before the fence was passed a
second time: the task may have ended while the target was at work. A retry of the same request before the secret was
acknowledged gets *another* secret of the same principal (`reissue.py`); the first is dead then (traps 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from broker.engines.protocol import Issued, end_is_fixed, shortest_life
from broker.errors import AlreadyAcknowledged, ClockUntrusted, NotPossible, OutcomeUnknown, TargetDown, UnderWay
from broker.lifecycle import doubt, exclusive, quotas, reconcile, told
from broker.lifecycle.reissue import begin_reissue, reissue
from broker.lifecycle.schedule import Course, next_due, refuse_late, with_deadline
from broker.lifecycle.world import World, promised
from broker.model.decision import Permit
from broker.model.event import EventKind
from broker.model.ids import LeaseId, new_lease
from broker.model.lease import Lease, LeaseEvent, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.role import Role
from broker.model.task import USABLE, Task
from broker.store import events, leases, receipts, requests, tasks
from ca.errors import Denied, Exhausted, Problem, Stale
from ca.runtime import failpoint
from ca.runtime.database import Transaction, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """The one value that holds a secret on its way to the agent."""

    lease: Lease
    issued: Issued = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """One request, with everything it was asked under."""

    permit: Permit
    role: Role
    key: str | None
    digest: str
    life: timedelta
    course: Course


async def obtain(
    world: World,
    permit: Permit,
    role: Role,
    *,
    idempotency_key: str | None,
    body_digest: str,
    ttl: timedelta | None,
    now: datetime,
) -> HandOver:
    """Make, or make anew, the secret that `permit` allows. `ttl` bounds the lease's whole life; the role bounds it too.

    It is finished even when whoever asked goes away: the lease is then active, unacknowledged, and revoked in time.

    Raises:
        Fenced, Stale: the task ended or changed, or the policies did, since the decision.
        Denied: its role was taken out of the settings meanwhile.
        AlreadyAcknowledged, KeyReused: the idempotency key has had its answer, or another body.
        Exhausted: the task's budget is used up.
        QuotaReached: so much is out already, or was given lately.
        Conflict: the target belongs to another installation.
        CheckedOut: only one may have it at a time, and somebody has.
        ClockUntrusted, TargetDown, OutcomeUnknown, Unavailable: nothing was handed over; ask again.
    """
    if permit.act.resource != role.full_name:
        raise RuntimeError("a permit opens the role it was given for, and no other")
    if not world.clock.trusted():
        raise ClockUntrusted("the machine's clock was stepped, nothing is given until it is stable for a minute")
    if permit.decision.policy_version != world.policy_version():
        raise Stale("the policies changed since this was decided")
    ask = _Ask(
        permit=permit,
        role=role,
        key=idempotency_key,
        digest=body_digest,
        life=role.longest if ttl is None else min(ttl, role.longest),
        course=Course.of(world.clock, now),
    )
    return await world.finish(_obtain(world, ask))


async def _obtain(world: World, ask: _Ask) -> HandOver:
    for target in exclusive.beneath(world, ask.role):
        await reconcile.ours(world, target)
    fresh = new_lease(ask.course.now)
    world.in_flight.add(fresh)
    try:
        with exclusive.claimed_once(world, ask.role):
            failpoint.reach("obtain.intend.before")
            lease = await world.database.write(_intent(world, ask, fresh))
            failpoint.reach("obtain.intend.after")
        if lease.id != fresh:
            issued = await reissue(world, lease, ask.role, ask.course)
            return HandOver(lease=issued[0], issued=issued[1])
        secret = await _create(world, ask, lease)
        return HandOver(lease=await _activate(world, ask, lease), issued=secret)
    finally:
        world.in_flight.discard(fresh)


def _intent(world: World, ask: _Ask, fresh: LeaseId) -> Unit[Lease]:
    """Fence, key, budget, lease, receipts: one transaction. Answers the new lease, or the one the key belongs to."""
    permit, now = ask.permit, ask.course.now

    async def unit(tx: Transaction) -> Lease:
        await tasks.hold_budgets(tx, permit.task)
        line = await tasks.touch(tx, permit.task.id, permit.task.version, now, states=USABLE)
        world.refuse_unrecorded(line)
        known = await _known(world, tx, ask)
        if known is not None:
            return await begin_reissue(world, tx, known, permit=permit, role=ask.role, now=now)
        await _spend(tx, line)
        await quotas.demand(world, tx, line[-1], ask.role.target, now)
        lease = _planned(world, ask, fresh, line)
        await exclusive.claim(tx, lease)
        await leases.insert(tx, lease)
        if ask.key is not None:
            await requests.remember(tx, permit.task.id, ask.key, digest=ask.digest, lease=lease.id, now=now)
        intended = told.receipt(ReceiptKind.LEASE_INTENDED, lease, str(permit.caller), now)
        await receipts.append(tx, world.broker, told.decided(permit), intended)
        return lease

    return unit


async def _known(world: World, tx: Transaction, ask: _Ask) -> Lease | None:
    """The lease this request became earlier, when it must be answered from that one."""
    if ask.key is None:
        return None
    found = await requests.find(tx, ask.permit.task.id, ask.key, ask.digest)
    if found is None:
        return None
    lease = await leases.get(tx, found)
    if lease.acknowledged_at is not None:
        raise AlreadyAcknowledged("this request's secret was handed over and acknowledged", lease=lease.id)
    if lease.id in world.in_flight or lease.state is LeaseState.INTENDED:
        raise UnderWay("the same request is being answered at this moment")
    return lease if lease.state is LeaseState.ACTIVE else None


async def _spend(tx: Transaction, line: Sequence[Task]) -> None:
    """Every budget of the chain is one for all that is below it: ten children don't have it ten times (traps 22)."""
    for link in line:
        most = link.scope.budget.secrets
        if most is not None and await leases.count(tx, link.id, most) >= most:
            whose = "the task" if link is line[-1] else f"the task `{link.id}` with all below it"
            raise Exhausted(f"{whose} may be given {most} secrets, and was", limit=most)


def _planned(world: World, ask: _Ask, fresh: LeaseId, line: Sequence[Task]) -> Lease:
    role, now = ask.role, ask.course.now
    engine, calls = world.at(role.target)
    create_by = now + calls.deadline
    handle = engine.plan(role, world.name_of(fresh))
    last = min([now + ask.life, *(link.deadline for link in line if link.deadline is not None)])
    if end_is_fixed(engine, handle):
        last = max(min(last, now + role.ttl), now + shortest_life(engine, handle))
    return Lease(
        id=fresh,
        task=ask.permit.task.id,
        task_version=ask.permit.task.version,
        role=role.full_name,
        handle=replace(handle, facts={**handle.facts, **with_deadline(create_by)}),
        guarantee=promised(engine, role),
        state=LeaseState.INTENDED,
        version=1,
        generation=1,
        intended_at=now,
        until=min(now + role.ttl, last),
        last=last,
        ack_by=now + role.ack_within,
        due_at=create_by + calls.deadline,
        broker=world.broker,
    )


async def _refuse_leaving(world: World, ask: _Ask, lease: Lease) -> None:
    """Its role may have begun to leave since it was decided; a reload counts what is recorded, and this is now."""
    if lease.role in world.leaving:
        await doubt.never_made(world, lease, ask.course.now)
        raise Denied(f"the role `{lease.role}` was taken out of the settings, nobody is given it anew", role=lease.role)


async def _create(world: World, ask: _Ask, lease: Lease) -> Issued:
    await _refuse_leaving(world, ask, lease)
    engine, calls = world.at(lease.handle.target)
    deadline = lease.intended_at + calls.deadline
    try:
        failpoint.reach("obtain.create.before")
        issued = await calls.call(engine.create(lease.handle, ask.role, lease.until, deadline))
        failpoint.reach("obtain.create.after")
    except (TargetDown, NotPossible):
        await doubt.never_made(world, lease, ask.course.now)
        raise
    except OutcomeUnknown:
        await doubt.lost(world, lease, ask.course.now)
        raise
    except Problem as problem:
        await doubt.abandon(world, lease, ask.course.now, str(problem))
        raise
    return issued


async def _activate(world: World, ask: _Ask, lease: Lease) -> Lease:
    now = ask.course.now

    async def unit(tx: Transaction) -> Lease:
        refuse_late(lease, now)
        line = await tasks.touch(tx, lease.task, lease.task_version, now)
        world.refuse_unrecorded(line)
        changed = replace(lease, activated_at=now, ack_by=now + ask.role.ack_within)
        active = await leases.move(
            tx,
            lease,
            LeaseEvent.ACTIVATED,
            activated_at=now,
            ack_by=changed.ack_by,
            due_at=next_due(world, changed),
        )
        said = told.receipt(ReceiptKind.LEASE_ACTIVATED, active, str(ask.permit.caller), now)
        await receipts.append(tx, world.broker, said)
        await events.append(tx, told.event(EventKind.LEASE_ISSUED, active, line[0].id, now))
        return active

    try:
        failpoint.reach("obtain.activate.before")
        active = await world.database.write(unit)
        failpoint.reach("obtain.activate.after")
    except Problem as problem:
        await doubt.undo(world, lease, ask.course.now, str(problem))
        raise
    world.feed.set()
    return active
