"""The wall clock was set back: moments that are stored as past are to come again, and no ending waits for them.

The clock of a process goes on evenly (`ca/runtime/clock.py`), but it takes the wall clock's word after a stable minute,
and so does the next process at its start. What was put off for a second would then be put off for an hour, with access
open. So whenever it is earlier than it was, by what this process saw or by the newest receipt of any, what is being
ended is due at once, and silence counts from now on. A deadline, and the moment a lease runs out, stay the moments they
were said to be. Looking too early costs a look: several brokers, and one whose clock lags behind, may all do this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle.world import World
from broker.store import endings, outbox, receipts, tasks
from ca.runtime import log
from ca.runtime.clock import BOUND
from ca.runtime.database import Transaction

_log = log.get(__name__)

EVERY = 1.0
"""Seconds between two looks at the clock."""


@dataclass(slots=True)
class SetBack:
    """The reconciler of moments that are to come again."""

    world: World
    _latest: datetime | None = field(default=None)

    async def tick(self, now: datetime) -> None:
        """Look at the clock, and make due what must not wait for it."""
        latest = self._latest or await self.world.database.read(_newest) or now
        if latest - now > BOUND:
            due = await self.world.database.write(lambda tx: _again(tx, now), ending=True)
            _log.warning("the clock was set back: what is being ended is due at once", by=str(latest - now), due=due)
            self.world.reaper.set()
            self.world.outbox.set()
        self._latest = now


async def _newest(tx: Transaction) -> datetime | None:
    for entry in await receipts.newest_heads(tx, 1):
        return entry.receipt.at
    return None


async def _again(tx: Transaction, now: datetime) -> int:
    return await endings.due_again(tx, now) + await outbox.due_again(tx, now) + await tasks.heard_by(tx, now)
