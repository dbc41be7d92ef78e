"""Which life of the store this is: found at the start, and noted beside the store while it goes on (traps 20)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.store import events, installation
from broker.store.installation import Installation
from ca.runtime import log
from ca.runtime.database import Database
from ca.runtime.past import Chronicle

_log = log.get(__name__)

EVERY = 5.0
"""Seconds between two words on how far the store has come."""


@dataclass(slots=True)
class Incarnations:
    """The store's past, compared once and written down since."""

    database: Database
    past: Chronicle

    async def begin(self, now: datetime) -> Installation:
        """The installation, in another incarnation when the store has not the past it had."""
        known = self.past.past
        found = await self.database.write(lambda tx: installation.settle(tx, now, known), ending=True)
        if found.quarantined_at == now:
            _log.warning(
                "the store is not the one it was: it was restored, promoted or moved, and targets wait to be adopted",
                incarnation=found.incarnation,
            )
        return found

    async def tick(self, _now: datetime) -> None:
        """Note how far it has come."""
        self.past.note((await self.database.read(events.epoch)).n)
