"""`Database` on PostgreSQL: whole units on one connection, many units in one commit.

A commit waits for the disk, so everything that is queued shares one (bounded by `GROUP`), each unit inside a savepoint
of its own: one that fails is undone alone (traps 29). They run one after another, so a unit sees those before it whole
or not at all, and nobody hears of a unit before COMMIT. Group order is commit order, within this process.

Between processes it is READ COMMITTED: whoever changes a state does so by compare-and-swap, touch first (traps 6). A
unit of a group that waits for another process's lock gives way: what was done before it is committed, so its locks go,
and it is run again alone. A unit that is alone is run again after a deadlock, up to `TRIES` times.

When the connection breaks before COMMIT was sent, nothing is durable and the group is run again on a new one. When it
breaks after, the group is *not* run again before it is known to be undone: each transaction holds a lock that nobody
else asks for and knows its own number; once the lock is free PostgreSQL is asked what became of the number. Only when
that can't be learnt within `PATIENCE` seconds a caller hears `Undecided`.

There is no reserve for the day the disk is full: `ending` changes nothing here. Keep room on the server itself.
Another incarnation of the store (a restore, a promotion) ends the process, which then begins with what is there.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from ca.errors import Problem, Unavailable
from ca.runtime import log
from ca.runtime.bell import Pull
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.database import Database, Unit
from ca.runtime.metrics import Metrics
from ca.runtime.postgres_address import parse
from ca.runtime.postgres_bell import ringing
from ca.runtime.postgres_group import INSIDE, Job, Reader, Worker, Writer, fail
from ca.runtime.postgres_session import Door, Incarnation
from ca.runtime.process import fatal

READERS = 4
"""Connections for units that change nothing."""

T = TypeVar("T")
_log = log.get(__name__)


@asynccontextmanager
async def open_postgres(
    url: str,
    *,
    metrics: Metrics | None = None,
    on_change: Callable[[BaseException], object] = fatal,
    clock: Clock | None = None,
) -> AsyncIterator[Database]:
    """Open the store at `url` (`postgres_address`); leaving waits for every unit handed over.

    Raises:
        Malformed: the address can't be read, or a file it names.
        Unsafe: the server is not to be relied on.
        Unavailable: it does not answer.
    """
    door = Door(parse(url), on_change)
    store = PostgresDatabase(door, metrics, clock or SystemClock())
    await store.start()
    try:
        yield store
    finally:
        await store.close()


class PostgresDatabase:
    """The face everybody sees; it belongs to the event loop it was opened on."""

    def __init__(self, door: Door, metrics: Metrics | None, clock: Clock) -> None:
        self.door = door
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._writes: asyncio.Queue[Job | None] = asyncio.Queue()
        self._reads: asyncio.Queue[Job | None] = asyncio.Queue()
        self._writer = Writer(door, metrics, clock)
        self._readers = [Reader(door) for _ in range(READERS)]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def incarnation(self) -> Incarnation:
        """Which history of which store this is."""
        assert self.door.incarnation is not None
        return self.door.incarnation

    async def start(self) -> None:
        """Connect once, so that what is wrong is said now. Raises as `Door.open`."""
        self._writer.connection = await self.door.open()
        for queue, worker in ((self._writes, self._writer), *((self._reads, one) for one in self._readers)):
            # Its own tasks, and no TaskGroup's: they never fail, for whatever happens is told to the unit's caller.
            self._tasks.append(self._loop.create_task(_work(queue, worker), name="store"))

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing, over one state that was committed."""
        return await self._hand_over(self._reads, unit)

    async def write(self, unit: Unit[T], *, ending: bool = False) -> T:  # noqa: ARG002 -- there is no reserve
        """Run a unit and make it durable. Cancelling the caller doesn't take the unit back.

        Raises:
            StoreFull: the server has no room; it keeps no reserve, so a unit that is `ending` is refused as well.
            Unavailable: nothing of it is durable. Undecided, one of its kind: that is not known.
        """
        return await self._hand_over(self._writes, unit)

    def bell(self, name: str, heard: Callable[[], object], clock: Clock) -> AbstractAsyncContextManager[Pull]:
        """Hear other processes over this store, and be heard by them (`ca.runtime.bell`)."""
        return ringing(self.door, name, heard, clock)

    async def close(self) -> None:
        """Refuse new units, finish those handed over, hang up."""
        if not self._closing:
            self._closing = True
            for queue, times in ((self._writes, 1), (self._reads, len(self._readers))):
                for _ in range(times):
                    queue.put_nowait(None)
        await asyncio.shield(asyncio.gather(*self._tasks))

    async def _hand_over(self, queue: asyncio.Queue[Job | None], unit: Unit[T]) -> T:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a store belongs to the event loop it was opened on")
        if INSIDE.get():
            raise RuntimeError("a unit awaited something other than its transaction")
        if self._closing:
            raise Unavailable("the store is closed")
        job = Job(unit, self._loop.create_future(), contextvars.copy_context())
        queue.put_nowait(job)
        answer: T = await job.future
        return answer


async def _work(queue: asyncio.Queue[Job | None], worker: Worker) -> None:
    going = True
    while going:
        jobs, job = [], await queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == worker.size or queue.empty():
                break
            job = queue.get_nowait()
        going = job is not None
        try:
            await worker.run(jobs)
        except Problem as error:
            worker.hang_up()
            fail(jobs, error)
        except Exception as error:  # noqa: BLE001 - nobody may be left waiting
            _log.error("the store failed unexpectedly", error=error)
            worker.hang_up()
            fail(jobs, error)
    await worker.close()
