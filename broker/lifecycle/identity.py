"""A task's own identity comes to be: intended (durable) → granted by the attestor server → active.

A lease of the internal engine `svid` that nobody asks for and nobody is handed: it belongs to every task that is bound
to an instance of our attestor. It has no window to renew, because it ends with the task by itself; that the task lives
is said to the attestor by `loops/identities.py`. What goes wrong on the way is settled as for any lease (`doubt.py`),
and asked for again under another name: a task is never kept waiting by its identity, and never ended for want of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.engines.svid import TARGET, task_role
from broker.errors import OutcomeUnknown, TargetDown
from broker.lifecycle import doubt, told
from broker.lifecycle.schedule import Course, refuse_late, with_deadline
from broker.lifecycle.world import World, promised
from broker.model.event import EventKind
from broker.model.ids import LeaseId, TaskId, new_lease
from broker.model.lease import Lease, LeaseEvent, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.task import Task
from broker.store import events, leases, receipts, tasks
from ca.errors import Problem
from ca.runtime import failpoint
from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction, Unit


async def give(world: World, task: TaskId, now: datetime) -> Lease | None:
    """Get `task` its identity; None when it has one, or is bound to no instance. It is finished whoever goes away.

    Raises:
        Fenced, NotFound: the task has ended.
        TargetDown, OutcomeUnknown, Problem: it has none now; whatever came of the attempt is ended.
    """
    return await world.finish(_give(world, task, Course.of(world.clock, now)))


async def _give(world: World, task: TaskId, course: Course) -> Lease | None:
    fresh = new_lease(course.now)
    world.in_flight.add(fresh)
    try:
        failpoint.reach("identity.intend.before")
        lease = await world.database.write(_intent(world, task, fresh, course.now))
        failpoint.reach("identity.intend.after")
        if lease is None:
            return None
        await _grant(world, lease, course)
        return await _activate(world, lease, course)
    finally:
        world.in_flight.discard(fresh)


def _intent(world: World, task: TaskId, fresh: LeaseId, now: datetime) -> Unit[Lease | None]:
    async def unit(tx: Transaction) -> Lease | None:
        present = await tasks.get(tx, task)
        line = await tasks.touch(tx, task, present.version, now)
        world.refuse_unrecorded(line)
        if present.instance is None or any(one.is_identity for one in await leases.open_of(tx, task)):
            return None
        lease = _planned(world, present, fresh, line, now)
        await leases.insert(tx, lease)
        await receipts.append(tx, world.broker, told.receipt(ReceiptKind.LEASE_INTENDED, lease, told.us(world), now))
        return lease

    return unit


def _planned(world: World, task: Task, fresh: LeaseId, line: Sequence[Task], now: datetime) -> Lease:
    assert task.instance is not None, "looked at before"
    engine, calls = world.at(TARGET)
    role, create_by = task_role(task.id, task.instance), now + calls.deadline
    handle = engine.plan(role, world.name_of(fresh))
    end = _whole_second(min(link.deadline for link in line if link.deadline is not None))
    return Lease(
        id=fresh,
        task=task.id,
        task_version=task.version,
        role=role.full_name,
        handle=replace(handle, facts={**handle.facts, **with_deadline(create_by)}),
        guarantee=promised(engine, role),
        state=LeaseState.INTENDED,
        version=1,
        generation=1,
        intended_at=now,
        until=end,
        last=end,
        ack_by=end,  # nobody is handed anything
        due_at=create_by + calls.deadline,
        broker=world.broker,
    )


def _whole_second(moment: datetime) -> datetime:
    """The one it falls into: certificates know no others."""
    return instant(micros(moment) // 1_000_000 * 1_000_000)


async def _grant(world: World, lease: Lease, course: Course) -> None:
    engine, calls = world.at(TARGET)
    role = task_role(str(lease.handle.facts["task"]), str(lease.handle.facts["instance"]))
    deadline = lease.intended_at + calls.deadline
    try:
        failpoint.reach("identity.create.before")
        await calls.call(engine.create(lease.handle, role, lease.until, deadline))
        failpoint.reach("identity.create.after")
    except TargetDown:
        await doubt.never_made(world, lease, course.now)
        raise
    except OutcomeUnknown:
        await doubt.lost(world, lease, course.now)
        raise
    except Problem as problem:
        await doubt.abandon(world, lease, course.now, str(problem))
        raise


async def _activate(world: World, lease: Lease, course: Course) -> Lease:
    now = course.now

    async def unit(tx: Transaction) -> Lease:
        refuse_late(lease, now)
        present = await tasks.get(tx, lease.task)  # it may have been narrowed meanwhile: its identity stays the same
        line = await tasks.touch(tx, lease.task, present.version, now)
        world.refuse_unrecorded(line)
        changes = {"task_version": present.version, "activated_at": now, "due_at": lease.until}
        active = await leases.move(tx, lease, LeaseEvent.ACTIVATED, **changes)
        await receipts.append(tx, world.broker, told.receipt(ReceiptKind.LEASE_ACTIVATED, active, told.us(world), now))
        await events.append(tx, told.event(EventKind.LEASE_ISSUED, active, line[0].id, now))
        return active

    try:
        failpoint.reach("identity.activate.before")
        active = await world.database.write(unit)
        failpoint.reach("identity.activate.after")
    except Problem as problem:
        await doubt.undo(world, lease, course.now, str(problem))
        raise
    world.feed.set()
    return active
