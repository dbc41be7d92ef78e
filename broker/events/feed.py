"""Events to many streams: one reader of the store, woken after commits; each stream at its own place in one order.

A stream begins at a cursor. While it is within the newest few thousand events it reads from memory, so a thousand idle
streams cost nothing but a place; further back it reads the store. A cursor of another incarnation, or older than what
is kept, gets a `Resync` with what lives at that moment: whatever is not in it is over (traps 7). The order is dense, so
a missing number is an error of ours and ends the process, never a silent loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import LeaseState
from broker.store import events, leases, tasks
from ca.runtime.database import Database, Transaction

_KEPT = 4096
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """Begin anew: what lives at `epoch`. Tasks with their versions, and the leases in use."""

    epoch: Epoch
    tasks: tuple[tuple[TaskId, int], ...]
    leases: tuple[LeaseId, ...]


class Feed:
    """The newest events in memory, and whoever waits for the next."""

    def __init__(self, database: Database, *, kept: int = _KEPT, ended: Callable[[], object] = lambda: None) -> None:
        """`ended` is told whenever a task's end was read, whichever broker wrote it."""
        self._database = database
        self._ended = ended
        self._recent: deque[Event] = deque(maxlen=kept)
        self._epoch: Epoch | None = None
        self._news = asyncio.Event()

    @property
    def epoch(self) -> Epoch:
        """The newest event read; what a beat tells."""
        if self._epoch is None:
            raise RuntimeError("the feed has not ticked yet")
        return self._epoch

    async def tick(self, now: datetime) -> None:  # noqa: ARG002 - a reconciler's shape
        """Read what was committed since, and wake every stream."""
        if self._epoch is None:
            self._epoch = await self._database.read(events.epoch)
        while True:
            place = self._epoch
            fresh = await self._database.read(lambda tx, n=place.n: events.after(tx, n, _BATCH))  # type: ignore[misc]
            for event in fresh:
                self._take(event)
            if len(fresh) < _BATCH:
                break

    def _take(self, event: Event) -> None:
        assert event.epoch is not None
        assert self._epoch is not None
        if event.epoch.n != self._epoch.n + 1:
            raise RuntimeError(f"the order of events has a gap after {self._epoch}")
        self._epoch = event.epoch
        self._recent.append(event)
        if event.kind is EventKind.TASK_ENDED:
            self._ended()
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def stream(self, cursor: Epoch | None, root: TaskId | None) -> AsyncIterator[Event | Resync]:
        """Everything after `cursor`, of one tree when asked for, for as long as it is read; None begins now."""
        place = cursor or self.epoch
        if not await self._database.read(lambda tx: _is_kept(tx, place)):
            resync = await self._database.read(lambda tx: snapshot(tx, root))
            yield resync
            place = resync.epoch
        number = place.n
        while True:
            news = self._news
            batch = await self._after(number)
            for event in batch:
                assert event.epoch is not None
                number = event.epoch.n
                if root is None or event.root == root:
                    yield event
            if not batch:
                await news.wait()

    async def _after(self, number: int) -> Sequence[Event]:
        if number >= self.epoch.n:
            return ()
        first = self._recent[0].epoch if self._recent else None
        if first is not None and first.n <= number + 1:
            return [self._recent[index] for index in range(number + 1 - first.n, len(self._recent))]
        return await self._database.read(lambda tx: events.after(tx, number, _BATCH))


async def snapshot(tx: Transaction, root: TaskId | None) -> Resync:
    """What lives now, of one tree or of all."""
    present = [task for task in await tasks.live(tx) if root is None or task.root == root]
    held = [lease for task in present for lease in await leases.open_of(tx, task.id)]
    return Resync(
        epoch=await events.epoch(tx),
        tasks=tuple((task.id, task.version) for task in present),
        leases=tuple(lease.id for lease in held if lease.state is LeaseState.ACTIVE),
    )


async def _is_kept(tx: Transaction, cursor: Epoch) -> bool:
    newest = await events.epoch(tx)
    return cursor.incarnation == newest.incarnation and await events.oldest(tx) - 1 <= cursor.n <= newest.n
