"""The epoch each enforcement point says it has applied, and which of them lag behind."""

from __future__ import annotations

from datetime import datetime

from broker.model.event import Epoch
from broker.store import confirmations, events
from ca.errors import Stale
from ca.runtime.database import Database, Transaction


async def confirm(database: Database, point: str, epoch: Epoch, now: datetime) -> None:
    """Keep what `point`, by its proven identity, says of itself.

    Raises:
        Stale: the epoch is of another incarnation, or was never reached: the point must resync.
    """

    async def unit(tx: Transaction) -> None:
        newest = await events.epoch(tx)
        if epoch.incarnation != newest.incarnation or epoch.n > newest.n:
            raise Stale(f"there is no epoch `{epoch}`, the newest is `{newest}`")
        await confirmations.confirm(tx, point, epoch, now)

    await database.write(unit, ending=True)
