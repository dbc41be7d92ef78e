"""Compares, target by target, the principals with our prefix to the leases, both ways; at least each minute (law 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.engines.protocol import Claim
from broker.errors import TargetDown
from broker.lifecycle import reconcile
from broker.lifecycle.schedule import pages
from broker.lifecycle.world import World
from broker.model.lease import Lease
from broker.store import leases, strangers
from ca.errors import Problem
from ca.runtime import log

_log = log.get(__name__)

EVERY = 60.0
"""Seconds between two sweeps, at most."""

_PATIENCE = 5.0
"""Seconds a tick waits for its targets."""

_SURE = 2
"""Sightings after which a stranger at a target that is surely ours is destroyed."""


@dataclass(slots=True)
class Swept:
    """What one sweep of one target found; `principals` is None when it can't list them."""

    target: str
    principals: int | None = None
    destroyed: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    trouble: str | None = None
    since: datetime | None = None
    """Since when it waits to be adopted."""


@dataclass(slots=True)
class Sweep:
    """The reconciler of names."""

    world: World
    _under_way: dict[str, asyncio.Task[Swept]] = field(default_factory=dict)

    async def tick(self, now: datetime) -> Sequence[Swept]:
        """Sweep every target; one that can't be swept is said so, and one that is slow holds up no other.

        Answers what was found where it is over; the rest goes on, and is not begun again before.
        """
        for target in sorted(self.world.targets):
            running = self._under_way.get(target)
            if running is None or running.done():
                self._under_way[target] = self.world.group.create_task(self._one(target, now))
        timer = self.world.group.create_task(self.world.clock.sleep(_PATIENCE))
        try:
            waiting = set(self._under_way.values())
            while waiting and not timer.done():
                _, _ = await asyncio.wait({*waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
                waiting = {task for task in waiting if not task.done()}
        finally:
            timer.cancel()
        return [task.result() for task in self._under_way.values() if task.done()]

    async def _one(self, target: str, now: datetime) -> Swept:
        swept = Swept(target=target)
        try:
            claim = await reconcile.claim(self.world, target)
            swept.since = await reconcile.quarantined(self.world, target)
            await self._compare(swept, claim, now)
        except Problem as problem:
            swept.trouble = str(problem)
            _log.warning("a target could not be swept", target=target, error=problem)
        return swept

    async def _compare(self, swept: Swept, claim: Claim | None, now: datetime) -> None:
        target = swept.target
        found = await reconcile.names(self.world, target)
        if found is None:
            return
        swept.principals = len(found)
        await self._missing(swept, frozenset(found), now)
        strangers_there: list[str] = []
        for begin in range(0, len(found), leases.NAMES):
            part = found[begin : begin + leases.NAMES]
            known = await self.world.database.read(lambda tx, part=part: leases.by_names(tx, part))  # type: ignore[misc]
            strangers_there += [name for name in part if name not in known]
            swept.unreadable += [name for name, lease in known.items() if lease is None]  # ours: left as they are
            for lease in known.values():
                if lease is not None and lease.is_closed:
                    await self._destroy(swept, lease.handle.name, now, lease)
        await self._strangers(swept, claim, strangers_there, now)

    async def _destroy(self, swept: Swept, name: str, now: datetime, lease: Lease | None) -> None:
        """One that can't be is tried again with the next sweep, and stands in nobody's way."""
        try:
            await reconcile.destroy(self.world, swept.target, name, now, lease)
        except TargetDown:
            raise
        except Problem as problem:
            swept.trouble = f"`{name}`: {problem}"
            _log.warning("a principal could not be destroyed", target=swept.target, principal=name, error=problem)
        else:
            swept.destroyed.append(name)

    async def _missing(self, swept: Swept, found: frozenset[str], now: datetime) -> None:
        """Active leases without a principal: in use before a second look, and not there at it."""
        suspects = [
            lease
            async for page in pages(self.world, swept.target)
            for lease in page
            if lease.handle.name not in found and lease.id not in self.world.in_flight
        ]
        if not suspects:
            return
        again = frozenset(await reconcile.names(self.world, swept.target) or ())
        for lease in suspects:
            if lease.handle.name not in again and lease.id not in self.world.in_flight:
                swept.missing.append(lease.handle.name)
                await reconcile.missing(self.world, lease, now)

    async def _strangers(self, swept: Swept, claim: Claim | None, names: Sequence[str], now: datetime) -> None:
        """Names no lease stands for: looked up after they were seen, and a name is intended before it is made.

        The target of a lease is not asked for: two targets may be two databases of one server, with one list.
        """
        present = self.world.installation.incarnation
        ours = claim is not None and claim.incarnation == present and swept.since is None
        for name in names:
            if await reconcile.notice(self.world, swept.target, name, now) >= _SURE and ours:
                await self._destroy(swept, name, now, None)
            else:
                swept.quarantined.append(name)
        earlier = await self.world.database.read(lambda tx: strangers.all_of(tx, swept.target))
        for name in earlier.keys() - set(names):
            await reconcile.vanished(self.world, swept.target, name)
