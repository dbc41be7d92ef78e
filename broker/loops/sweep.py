"""Compares, target by target, the principals with our prefix to the leases, both ways; at least each minute (law 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.engines.protocol import Claim
from broker.lifecycle import reconcile
from broker.lifecycle.world import World
from broker.model.lease import Lease
from broker.store import leases, strangers
from ca.errors import Problem
from ca.runtime import log
from ca.runtime.database import Transaction

_log = log.get(__name__)

EVERY = 60.0
"""Seconds between two sweeps, at most."""

_SURE = 2
"""Sightings after which a stranger at a target that is surely ours is destroyed."""


@dataclass(slots=True)
class Swept:
    """What one sweep of one target found; `principals` is None when it can't list them."""

    target: str
    principals: int | None = None
    destroyed: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    trouble: str | None = None


@dataclass(slots=True)
class Sweep:
    """The reconciler of names."""

    world: World

    async def tick(self, now: datetime) -> Sequence[Swept]:
        """Sweep every target; one that can't be swept is said so, and holds up no other."""
        return await asyncio.gather(*(self._one(target, now) for target in sorted(self.world.targets)))

    async def _one(self, target: str, now: datetime) -> Swept:
        swept = Swept(target=target)
        try:
            claim = await reconcile.claim(self.world, target)
            await self._compare(swept, claim, now)
        except Problem as problem:
            swept.trouble = str(problem)
            _log.warning("a target could not be swept", target=target, error=problem)
        return swept

    async def _compare(self, swept: Swept, claim: Claim | None, now: datetime) -> None:
        target = swept.target
        active = await self.world.database.read(lambda tx: leases.active_at(tx, target))  # before the names: see below
        found = await reconcile.names(self.world, target)
        if found is None:
            return
        swept.principals = len(found)
        for lease in active:  # it had a principal before we looked, and has none
            if lease.handle.name not in set(found) and lease.id not in self.world.in_flight:
                swept.missing.append(lease.handle.name)
                await reconcile.missing(self.world, lease, now)
        known, unknown = await self.world.database.read(lambda tx: _split(tx, found))
        for lease in known:
            swept.destroyed.append(lease.handle.name)
            await reconcile.destroy(self.world, target, lease.handle.name, now, lease)
        await self._strangers(swept, claim, unknown, now)

    async def _strangers(self, swept: Swept, claim: Claim | None, names: Sequence[str], now: datetime) -> None:
        ours = claim is not None and claim.incarnation == self.world.installation.incarnation
        for name in names:
            if await reconcile.notice(self.world, swept.target, name, now) >= _SURE and ours:
                swept.destroyed.append(name)
                await reconcile.destroy(self.world, swept.target, name, now, None)
            else:
                swept.quarantined.append(name)
        earlier = await self.world.database.read(lambda tx: strangers.all_of(tx, swept.target))
        for name in earlier.keys() - set(names):
            await reconcile.vanished(self.world, swept.target, name)


async def _split(tx: Transaction, names: Sequence[str]) -> tuple[list[Lease], list[str]]:
    """Of names seen at a target: those of closed leases, and those of no lease.

    A name was intended before it was made, and this is read after it was seen: what is unknown here was never ours to
    make in this life of the store. The target of a lease is not asked for: two targets may be two databases of one
    server, which has one list of principals.
    """
    standing = await leases.open_names(tx)
    closed: list[Lease] = []
    unknown: list[str] = []
    for name in names:
        if name in standing:
            continue
        lease = await leases.by_name(tx, name)
        if lease is None:
            unknown.append(name)
        elif lease.is_closed:
            closed.append(lease)
    return closed, unknown
