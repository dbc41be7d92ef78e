"""An active lease moves its end ahead, invisibly: only while its task lives, is heard of and seen; never past `last`.

Expiry at the target is always a short window away. So a broker that is dead, or cut off, or whose clock is broken,
gives nobody a longer life than that window (traps 11, 16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.engines.protocol import end_is_fixed
from broker.errors import ClockUntrusted, Fenced, NotPossible
from broker.lifecycle import told, withdraw
from broker.lifecycle.schedule import Course, backoff, longest_until, next_due
from broker.lifecycle.world import World
from broker.model.decision import Permit
from broker.model.event import EventKind
from broker.model.lease import CloseReason, Lease, LeaseEvent
from broker.model.observed import Observation
from broker.model.receipt import ReceiptKind
from broker.model.task import Task
from broker.store import events, leases, receipts, tasks
from ca.errors import NotFound, Problem, Stale
from ca.runtime import failpoint
from ca.runtime.database import Transaction, Unit


async def renew(world: World, lease: Lease, now: datetime, *, permit: Permit | None = None) -> Lease:
    """Move the end of `lease`; the record first, then the target.

    Raises:
        Fenced: its task, or one above, ended, changed, is late, silent or not seen to live.
        ClockUntrusted: wall and boot time disagree.
        Stale: it changed since it was read.
        NotPossible: its end is written into its secret.
        TargetDown, OutcomeUnknown: the target did not answer; it is tried again by itself.
    """
    if not world.clock.trusted():
        raise ClockUntrusted("the machine's clock was stepped, nothing is renewed until it is stable for a minute")
    if permit is not None and permit.decision.policy_version != world.policy_version():
        raise Stale("the policies changed since this was decided")
    return await world.finish(_renew(world, lease, Course.of(world.clock, now), permit))


async def _renew(world: World, lease: Lease, course: Course, permit: Permit | None) -> Lease:
    engine, calls = world.at(lease.handle.target)
    if end_is_fixed(engine, lease.handle):
        raise NotPossible("the end of this lease is written into its secret, ask for another one")
    failpoint.reach("renew.commit.before")
    renewed = await world.database.write(_renewing(world, lease, course.now, permit))
    failpoint.reach("renew.commit.after")
    world.feed.set()
    try:
        failpoint.reach("renew.renew.before")
        await calls.call(engine.renew(renewed.handle, renewed.until))
        failpoint.reach("renew.renew.after")
    except NotFound:
        trouble = "the principal was removed at the target"
        return await withdraw.begin(world, lease.id, CloseReason.RAN_OUT, course.now, trouble=trouble)
    except Problem as problem:
        await _again_soon(world, renewed, course.now, str(problem))
        raise
    return renewed


def _renewing(world: World, lease: Lease, now: datetime, permit: Permit | None) -> Unit[Lease]:
    actor = told.us(world) if permit is None else str(permit.caller)

    async def unit(tx: Transaction) -> Lease:
        line = await tasks.touch(tx, lease.task, lease.task_version, now)
        world.refuse_unrecorded(line)
        refuse_unseen(world, line)
        changed = replace(lease, until=longest_until(world, lease, now))
        due = next_due(world, changed)
        renewed = await leases.move(
            tx,
            lease,
            LeaseEvent.RENEWED,
            broker=world.broker,
            until=changed.until,
            due_at=due,
            attempts=0,
            trouble=None,
        )
        decided = () if permit is None else (told.decided(permit),)
        until = renewed.until.isoformat()
        said = told.receipt(ReceiptKind.LEASE_RENEWED, renewed, actor, now, until=until)
        await receipts.append(tx, world.broker, *decided, said)
        await events.append(tx, told.event(EventKind.LEASE_RENEWED, renewed, line[0].id, now, until=until))
        return renewed

    return unit


def refuse_unseen(world: World, line: Sequence[Task]) -> None:
    """Every process a task of the chain is bound to must be seen to live. Raises Fenced."""
    for link in line:
        if link.instance is not None and world.observer.observed(link.instance).state is not Observation.LIVE:
            raise Fenced("the process the task is bound to is not seen to live")


async def _again_soon(world: World, lease: Lease, now: datetime, trouble: str) -> None:
    """What the target was not told yet is told again, well before the old end."""
    soon = min(next_due(world, lease), now + backoff(lease.attempts))
    changes = {"due_at": soon, "attempts": lease.attempts + 1, "trouble": trouble}
    failpoint.reach("renew.again.before")
    await world.database.write(lambda tx: leases.keep(tx, lease, **changes), ending=True)
    failpoint.reach("renew.again.after")
