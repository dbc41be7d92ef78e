"""The wall clock was set back: moments that are stored as past are to come again, and no ending waits for them.

The clock of a process goes on evenly (`ca/runtime/clock.py`), but it takes the wall clock's word after a stable minute,
and so does the next process at its start. What was put off for a second would then be put off for an hour, with access
open. So whenever it is earlier than it was, by what this process saw or by the newest moment the store remembers, what
is being ended is due at once, and silence and the time to acknowledge count from now on. A deadline, and the moment a
lease runs out, stay the moments they were said to be.

Looking too early at an ending costs a look, so of several brokers each may ask for it, one whose clock lags behind too.
Silence is another matter: whom another broker heard a second ago must not be silent because our clock is slow. It is
counted anew only by a broker that is `alone` on its store.
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
    alone: bool = True
    _latest: datetime | None = field(default=None)

    async def tick(self, now: datetime) -> None:
        """Look at the clock, and make due what must not wait for it."""
        latest = self._latest or await self.world.database.read(_newest) or now
        if latest - now > BOUND:
            due = await self.world.database.write(lambda tx: self._again(tx, now), ending=True)
            _log.warning("the clock was set back: what is being ended is due at once", by=str(latest - now), due=due)
            self.world.reaper.set()
            self.world.outbox.set()
        self._latest = now

    async def _again(self, tx: Transaction, now: datetime) -> int:
        counted = await tasks.heard_by(tx, now) + await endings.received_by(tx, now) if self.alone else 0
        return counted + await endings.due_again(tx, now) + await outbox.due_again(tx, now)


async def _newest(tx: Transaction) -> datetime | None:
    heads = [entry.receipt.at for entry in await receipts.newest_heads(tx, 1)]
    heard = await tasks.last_heard(tx)
    return max((*heads, *([] if heard is None else [heard])), default=None)
