"""Which life of the store this is: found at the start, and noted beside the store while it goes on (traps 20)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle import told
from broker.lifecycle.world import World
from broker.store import events, installation
from broker.store.installation import Installation
from ca.runtime import log
from ca.runtime.database import Database, StoreFull
from ca.runtime.past import Chronicle

_log = log.get(__name__)

EVERY = 5.0
"""Seconds between two words on how far the store has come."""


@dataclass(slots=True)
class Incarnations:
    """The store's past, compared once and written down since."""

    database: Database
    past: Chronicle
    _settled: bool = field(default=True, init=False)

    async def begin(self, now: datetime) -> Installation:
        """The installation, in another incarnation when the store has not the past it had.

        A store that is full is only read: what must end is ended all the same, and nothing else begins (traps 12).
        """
        known = self.past.past
        try:
            found = await self.database.write(lambda tx: installation.settle(tx, now, known), ending=True)
        except StoreFull as full:
            _log.warning("what the store is now can't be written into it", error=full)
            found = await self.database.read(lambda tx: installation.compared(tx, known, now))
            self._settled = False
        if found.quarantined_at == now:
            _log.warning(
                "the store is not the one it was: it was restored, promoted or moved, and targets wait to be adopted",
                incarnation=found.incarnation,
            )
        return found

    async def tick(self, _now: datetime) -> None:
        """Note how far it has come; not while the name it is to have was never written into it."""
        if self._settled:
            self.past.note((await self.database.read(events.epoch)).n)


async def begun(world: World, now: datetime) -> None:
    """Write that this broker started; one that starts on a full store ends what must end without that word."""
    try:
        await world.database.write(lambda tx: told.started(tx, world.broker, now))
    except StoreFull as full:
        _log.warning("that this broker started can't be recorded", error=full)
