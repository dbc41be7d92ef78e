"""Events to many streams: one reader of the store, woken after commits; each stream at its own place in one order.

A stream begins at a cursor. While it is within the newest few thousand events it reads from memory, so ten thousand
idle streams cost nothing but a place each: one that follows a tree is woken by events of that tree alone, and an event
is put into its words once, whoever hears it. Further back it reads the store. A cursor of another incarnation, or older
than what is kept, gets a `Resync` with what lives at that moment: whatever is not in it is over (traps 7). The order is
dense, so a missing number is an error of ours and ends the process, never a silent loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

from broker.events.snapshot import Resync, is_kept, snapshot
from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import TaskId
from broker.store import events, quarantine
from broker.store.quarantine import Unreadable
from broker.wire.events import EventLine
from ca.runtime.clock import micros
from ca.runtime.database import Database, Transaction
from ca.runtime.give_way import GiveWay
from ca.runtime.stream import encoded

__all__ = ["Feed", "Reader", "Resync"]

_KEPT = 4096
_BATCH = 500
_WORDED = 512


class Feed:
    """The newest events in memory, and whoever waits for the next."""

    def __init__(self, database: Database, *, kept: int = _KEPT, ended: Callable[[], object] = lambda: None) -> None:
        """`ended` is told whenever a task's end was read, whichever broker wrote it."""
        self._database = database
        self._ended = ended
        self._recent: deque[Event] = deque(maxlen=kept)
        self._epoch: Epoch | None = None
        self._bells: WeakValueDictionary[TaskId | None, _Bell] = WeakValueDictionary()
        self._words: dict[int, bytes] = {}
        self._beat: tuple[int, bytes] | None = None
        self._whole: Resync | None = None
        self._turn = asyncio.Lock()

    @property
    def epoch(self) -> Epoch:
        """The newest event read; what a beat tells."""
        if self._epoch is None:
            raise RuntimeError("the feed has not ticked yet")
        return self._epoch

    async def tick(self, now: datetime) -> None:
        """Read what was committed since, and wake the streams it is for."""
        if self._epoch is None:
            self._epoch = await self._database.read(events.epoch)
        while True:
            place = self._epoch
            fresh = await self._database.read(lambda tx, n=place.n: events.after(tx, n, _BATCH))  # type: ignore[misc]
            if fresh and _number(fresh[0]) != place.n + 1:  # we stood still for longer than events are kept
                self._recent.clear()
                self._epoch = Epoch(place.incarnation, _number(fresh[0]) - 1)
            for event in fresh:
                self._take(event)
            self._sound(fresh)
            await self._set_aside(fresh, now)
            if len(fresh) < _BATCH:
                break

    async def _set_aside(self, fresh: Sequence[Event], now: datetime) -> None:
        """An event that can't be read keeps its number, and stops nobody."""
        for event in fresh:
            if event.kind is EventKind.UNREADABLE:
                bad = Unreadable("events", str(_number(event)), str(event.body.get("why")))
                await self._database.write(lambda tx, bad=bad: quarantine.put(tx, bad, micros(now)), ending=True)  # type: ignore[misc]

    def _take(self, event: Event) -> None:
        assert event.epoch is not None
        assert self._epoch is not None
        if event.epoch.n != self._epoch.n + 1:
            raise RuntimeError(f"the order of events has a gap after {self._epoch}")
        self._epoch = event.epoch
        self._recent.append(event)
        if event.kind is EventKind.TASK_ENDED:
            self._ended()

    def _sound(self, fresh: Sequence[Event]) -> None:
        for root in {None, *(event.root for event in fresh)} if fresh else ():
            bell = self._bells.pop(root, None)
            if bell is not None:
                bell.sound()

    def bell(self, root: TaskId | None) -> _Bell:
        """What the next event of a tree, or of any, will ring."""
        found = self._bells.get(root)
        if found is None:
            found = self._bells[root] = _Bell()
        return found

    def words(self, event: Event) -> bytes:
        """An event as every stream is told it."""
        number = _number(event)
        found = self._words.get(number)
        if found is None:
            line = EventLine.of(event)
            found = self._words[number] = encoded(line.epoch, str(line.kind), line.model_dump_json())
            while len(self._words) > _WORDED:
                del self._words[next(iter(self._words))]
        return found

    def beat(self) -> bytes:
        """What a stream is told on which nothing happened."""
        if self._beat is None or self._beat[0] != self.epoch.n:
            self._beat = (self.epoch.n, encoded(None, "beat", str(self.epoch)))
        return self._beat[1]

    def reader(self, cursor: Epoch | None, root: TaskId | None) -> Reader:
        """Everything after `cursor`, of one tree when asked for; None begins now."""
        return Reader(self, cursor or self.epoch, root, sure=cursor is None)

    async def stream(self, cursor: Epoch | None, root: TaskId | None) -> AsyncIterator[Event | Resync]:
        """The same, one by one, for as long as it is read."""
        reader = self.reader(cursor, root)
        while True:
            for line in await reader.next(None):
                yield line

    async def after(self, number: int, root: TaskId | None) -> Sequence[Event] | None:
        """The events that follow a number; None when some of them were forgotten."""
        if number >= self.epoch.n:
            return ()
        first = _number(self._recent[0]) if self._recent else None
        if first is not None and first <= number + 1:
            end = len(self._recent) if root is not None else min(len(self._recent), number + 1 - first + _BATCH)
            found = [self._recent[index] for index in range(number + 1 - first, end)]
            return found if root is None else [event for event in found if event.root == root]

        async def unit(tx: Transaction) -> Sequence[Event] | None:
            if await events.oldest(tx) > number + 1:
                return None
            return await events.after(tx, number, _BATCH, root)

        return await self._database.read(unit)

    async def is_kept(self, cursor: Epoch) -> bool:
        """Whether a stream can go on from a cursor; one that is near costs no look into the store."""
        near = self.epoch.n - len(self._recent) <= cursor.n <= self.epoch.n
        if near and cursor.incarnation == self.epoch.incarnation:
            return True
        return await self._database.read(lambda tx: is_kept(tx, cursor))

    async def snapshot(self, root: TaskId | None) -> Resync:
        """What lives now; when everybody comes back at once that is read once for all of them."""
        if root is not None:
            return await self._database.read(lambda tx: snapshot(tx, root))
        async with self._turn:
            if self._whole is None or self._whole.epoch != self.epoch:
                self._whole = await self._database.read(lambda tx: snapshot(tx, None))
            return self._whole


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Bell:
    """What many streams wait for; a wait that ends by its time costs no exception, ten thousand of them a second."""

    _waiting: set[asyncio.Future[bool]] = field(default_factory=set)

    def sound(self) -> None:
        """Let everybody go on."""
        for one in self._waiting:
            _end(one, rung=True)

    async def wait(self, patience: float | None) -> bool:
        """Whether it rang within so many seconds."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(mine)
        timer = None if patience is None else loop.call_later(patience, lambda: _end(mine, rung=False))
        try:
            return await mine
        finally:
            self._waiting.discard(mine)
            if timer is not None:
                timer.cancel()


def _end(wait: asyncio.Future[bool], *, rung: bool) -> None:
    if not wait.done():
        wait.set_result(rung)


class Reader:
    """One stream's place."""

    __slots__ = ("_feed", "_place", "_root", "_sure")

    def __init__(self, feed: Feed, place: Epoch, root: TaskId | None, *, sure: bool) -> None:
        self._feed, self._place, self._root, self._sure = feed, place, root, sure

    async def next(self, patience: float | None) -> Sequence[Event | Resync]:
        """What follows, as soon as there is any; nothing when there was none for so many seconds."""
        if not self._sure and not await self._feed.is_kept(self._place):
            return await self._begin_anew()
        self._sure = True
        while True:
            bell = self._feed.bell(self._root)  # before the look: what comes during it rings
            newest = self._feed.epoch
            found = await self._feed.after(self._place.n, self._root)
            if found is None or self._place.incarnation != newest.incarnation:
                return await self._begin_anew()
            if found:
                await GiveWay()  # who is far behind goes on without a pause
                self._place = Epoch(newest.incarnation, _number(found[-1]))
                return found
            self._place = max(self._place, newest, key=lambda epoch: epoch.n)
            if not await bell.wait(patience):
                return ()

    async def _begin_anew(self) -> Sequence[Resync]:
        resync = await self._feed.snapshot(self._root)
        self._place, self._sure = resync.epoch, True
        return (resync,)


def _number(event: Event) -> int:
    assert event.epoch is not None
    return event.epoch.n
