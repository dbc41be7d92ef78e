"""What is really at a target, and what is done about it.

The sweep (`loops/sweep.py`) compares; here are its hands. A name with our prefix whose lease is closed is destroyed: it
is a create that arrived after everybody had given it up (traps 8). A name no lease knows is a *stranger*: it is written
down and left alone, and destroyed only when it was seen again and the target's claim names this very life of this store
(traps 19, 20): after a restore our own memory is what is wrong, not the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.engines.protocol import Claim, Claimable, Listing
from broker.lifecycle import told, withdraw
from broker.lifecycle.world import World
from broker.model.lease import CloseReason, Handle, Lease
from broker.model.receipt import Receipt, ReceiptKind
from broker.store import installation, receipts, strangers
from ca.errors import Conflict
from ca.runtime import failpoint
from ca.runtime.database import Transaction


async def ours(world: World, target: str) -> None:
    """Let a grant go on only at a target that carries our claim. Raises Conflict, TargetDown."""
    world.at(target)
    while target not in world.claimed:
        await claim(world, target)


async def claim(world: World, target: str) -> Claim | None:
    """Make or read the claim; None when the target can't carry one.

    Raises:
        Conflict: the target belongs to another installation; nothing more is made there.
    """
    engine, calls = world.at(target)
    if not isinstance(engine, Claimable):
        world.claimed.add(target)
        return None
    facts = world.installation
    try:
        failpoint.reach("reconcile.claim.before")
        found = await calls.call(engine.claim(facts.id, facts.incarnation), ending=True)
        failpoint.reach("reconcile.claim.after")
    except Conflict as conflict:
        world.claimed.discard(target)
        world.foreign[target] = str(conflict)
        raise
    if world.engines.get(target) is engine:  # else it is another server now, of which that says nothing
        world.claimed.add(target)
        world.foreign.pop(target, None)
    return found


async def adopt(world: World, target: str, by: str, now: datetime) -> Sequence[str]:
    """An operator looked at what is there: from now on strangers are destroyed again; answers those that are known.

    Raises:
        Conflict: the target belongs to another installation.
        TargetDown, OutcomeUnknown: it was not told.
    """
    engine, calls = world.at(target)
    if isinstance(engine, Claimable):
        failpoint.reach("reconcile.adopt.before")
        await calls.call(engine.adopt(world.installation.id, world.installation.incarnation), ending=True)
        failpoint.reach("reconcile.adopt.after")

    async def unit(tx: Transaction) -> Sequence[str]:
        await installation.adopt(tx, target, by, now)
        there = sorted(await strangers.all_of(tx, target))
        body = {"target": target, "strangers": len(there), "incarnation": world.installation.incarnation}
        await receipts.append(tx, world.broker, Receipt(kind=ReceiptKind.TARGET_ADOPTED, at=now, actor=by, body=body))
        return there

    failpoint.reach("reconcile.adopted.before")
    there = await world.database.write(unit)
    failpoint.reach("reconcile.adopted.after")
    return there


async def quarantined(world: World, target: str) -> datetime | None:
    """Since when nothing that no lease stands for may be destroyed at `target`; None when it may be.

    After a restore our own memory is what is wrong: what it says ran out may have been renewed since, what it says was
    never received may be in use, and what it does not know may be ours.
    """
    if world.installation.quarantined_at is None:
        return None
    return await world.database.read(lambda tx: installation.quarantined(tx, target))


async def names(world: World, target: str) -> Sequence[str] | None:
    """Every principal of ours at a target; None when it can't tell."""
    engine, calls = world.at(target)
    if not isinstance(engine, Listing):
        return None
    failpoint.reach("reconcile.names.before")
    found = await calls.call(engine.names(world.prefix), ending=True)
    failpoint.reach("reconcile.names.after")
    return found


async def destroy(world: World, target: str, name: str, now: datetime, lease: Lease | None) -> None:
    """End and remove a principal no open lease stands for. Raises NotYet, TargetDown, OutcomeUnknown."""
    engine, calls = world.at(target)
    handle = Handle(target=target, engine=engine.kind, name=name) if lease is None else lease.handle
    failpoint.reach("reconcile.end_access.before")
    await calls.call(engine.end_access(handle), ending=True)
    failpoint.reach("reconcile.end_access.after")
    failpoint.reach("reconcile.clean_up.before")
    await calls.call(engine.clean_up(handle), ending=True)
    failpoint.reach("reconcile.clean_up.after")

    async def unit(tx: Transaction) -> None:
        await strangers.forget(tx, target, name)
        await receipts.append(tx, world.broker, _found(world, target, name, now, lease=lease, done="destroyed"))

    failpoint.reach("reconcile.destroyed.before")
    await world.database.write(unit, ending=True)
    failpoint.reach("reconcile.destroyed.after")


async def notice(world: World, target: str, name: str, now: datetime) -> int:
    """Write a stranger down; how often it was seen by now."""

    async def unit(tx: Transaction) -> int:
        sightings = await strangers.see(tx, target, name, now)
        if sightings == 1:
            await receipts.append(tx, world.broker, _found(world, target, name, now, lease=None, done="quarantined"))
        return sightings

    failpoint.reach("reconcile.notice.before")
    sightings = await world.database.write(unit, ending=True)
    failpoint.reach("reconcile.notice.after")
    return sightings


async def vanished(world: World, target: str, name: str) -> None:
    """A stranger is there no more."""
    failpoint.reach("reconcile.vanished.before")
    await world.database.write(lambda tx: strangers.forget(tx, target, name), ending=True)
    failpoint.reach("reconcile.vanished.after")


async def missing(world: World, lease: Lease, now: datetime) -> Lease:
    """An active lease has no principal any more: somebody removed it; its sessions, if any, are cut."""
    return await withdraw.end(world, lease, CloseReason.RAN_OUT, now, trouble="the principal was removed at the target")


def _found(world: World, target: str, name: str, now: datetime, *, lease: Lease | None, done: str) -> Receipt:
    return Receipt(
        kind=ReceiptKind.FOUND_UNKNOWN,
        at=now,
        actor=told.us(world),
        task=None if lease is None else lease.task,
        lease=None if lease is None else lease.id,
        body={"target": target, "principal": name, "done": done},
    )
