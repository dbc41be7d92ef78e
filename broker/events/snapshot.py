"""What lives at one moment, for readers whose cursor can't be gone on from."""

from __future__ import annotations

from dataclasses import dataclass

from broker.model.event import Epoch
from broker.model.ids import LeaseId, TaskId
from broker.store import events, leases, tasks
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """Begin anew: what lives at `epoch`. Tasks with their versions, and the leases in use."""

    epoch: Epoch
    tasks: tuple[tuple[TaskId, int], ...]
    leases: tuple[LeaseId, ...]


async def snapshot(tx: Transaction, root: TaskId | None) -> Resync:
    """What lives now, of one tree or of all."""
    present = await tasks.live_versions(tx, root)
    return Resync(
        epoch=await events.epoch(tx), tasks=tuple(present), leases=tuple(await leases.active_of_live(tx, root))
    )


async def is_kept(tx: Transaction, cursor: Epoch) -> bool:
    """Whether everything after a cursor is still there to be read."""
    newest = await events.epoch(tx)
    return cursor.incarnation == newest.incarnation and await events.oldest(tx) - 1 <= cursor.n <= newest.n
