"""`Database` on SQLite: whole units on one thread, many units in one commit.

A commit waits for the disk, so everything that is queued shares one (bounded by `GROUP`), each unit inside a savepoint
of its own: one that fails is undone alone (traps 29). A caller hears of its unit after COMMIT, never before. Reads run
between two groups and so see committed state only. Group order is commit order.

The file is locked for the process's life (traps 20): a second process gets `StoreLocked` at once.

When the disk is full (traps 12) the reserve beside the file is removed, units that are not `ending` are refused, and
those that are run alone. Whatever gives access is refused without touching the disk until the reserve could be made
again. An I/O error at COMMIT leaves unknown what is durable: the process ends, and knows again after it has re-read.

Booleans come back as 0 and 1.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ca.errors import Malformed, Unavailable
from ca.runtime import failpoint, log
from ca.runtime.database import Database, StoreFull, StoreLocked, Unit
from ca.runtime.metrics import Metrics
from ca.runtime.process import fatal
from ca.runtime.reserve import Reserve, has_room
from ca.runtime.sqlite_unit import SqliteTransaction, drive, primary_code, row_of, translated

GROUP = 256
"""The most units that share one commit."""

RESERVE = 4 * 1024 * 1024
"""Bytes kept aside for endings. The log is folded into the file when it is a quarter as long: so the reserve has room
for a whole log's worth of new pages in the file, and the log itself is given back."""

_PAGE = 4096

T = TypeVar("T")
_log = log.get(__name__)
OnFatal = Callable[[BaseException], object]


@asynccontextmanager
async def open_sqlite(
    path: Path, *, reserve: int = RESERVE, metrics: Metrics | None = None, on_fatal: OnFatal = fatal
) -> AsyncIterator[Database]:
    """Open the store at `path`, made with mode 0600 when it is new; leaving waits for every unit handed over.

    Raises:
        StoreLocked: another process (or this one) has it open.
        Malformed: the file is no SQLite store, or its folder can't be used.
    """
    connection = _connect(path, max(8, reserve // 4 // _PAGE))
    spare = Reserve(path.with_name(path.name + ".reserve"), reserve)
    store = SqliteDatabase(_Writer(connection, path, spare, metrics, on_fatal))
    try:
        yield store
    finally:
        await store.close()


def open_at(url: str, *, metrics: Metrics | None = None) -> AbstractAsyncContextManager[Database]:
    """Open the store at `sqlite:/absolute/path`. Raises as `open_sqlite`."""
    return open_sqlite(Path(url.removeprefix("sqlite:")), metrics=metrics)


class SqliteDatabase:
    """The face the event loop sees: it hands units to the thread and waits."""

    def __init__(self, writer: _Writer) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._ended = self._loop.create_future()
        self._closing = False
        threading.Thread(target=self._work, name="store", daemon=True).start()

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing, over committed state."""
        return await self._hand_over(unit, writes=False, ending=False)

    async def write(self, unit: Unit[T], *, ending: bool = False) -> T:
        """Run a unit and make it durable. Cancelling the caller doesn't take the unit back."""
        return await self._hand_over(unit, writes=True, ending=ending)

    async def close(self) -> None:
        """Refuse new units, finish those handed over, release the file."""
        if not self._closing:
            self._closing = True
            self._writer.queue.put(None)
        await asyncio.shield(self._ended)

    async def _hand_over(self, unit: Unit[T], *, writes: bool, ending: bool) -> T:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a store belongs to the event loop it was opened on")
        if self._closing:
            raise Unavailable("the store is closed")
        job = _Job(unit, self._loop.create_future(), contextvars.copy_context(), writes=writes, ending=ending)
        self._writer.queue.put(job)
        answer: T = await job.future
        return answer

    def _work(self) -> None:
        try:
            self._writer.work(self._tell)
        finally:
            self._call(_settle, self._ended, None, None)

    def _tell(self, outcomes: Sequence[_Outcome]) -> None:
        self._call(_settle_all, outcomes)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *args)


@dataclass(slots=True, eq=False)
class _Job:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    context: contextvars.Context
    writes: bool
    ending: bool

    def run(self, tx: SqliteTransaction) -> _Outcome:
        """Drive the unit in the context of its caller; never raises."""
        try:
            return _Outcome(self, self.context.run(drive, self.unit, tx), None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            return _Outcome(self, None, error)
        except BaseException as error:  # noqa: BLE001 - SystemExit in a unit must not end the thread
            misuse = RuntimeError(f"a unit raised `{type(error).__name__}`")
            misuse.__cause__ = error
            return _Outcome(self, None, misuse)


@dataclass(slots=True)
class _Outcome:
    job: _Job
    value: Any
    error: Exception | None


class _Writer:
    """The thread's side; only `queue` is touched from outside."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, spare: Reserve, metrics: Metrics | None, on_fatal: OnFatal
    ) -> None:
        self.queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._connection = connection
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._spare = spare
        self._metrics = metrics
        self._now = asyncio.get_running_loop().time  # only differences of it are used
        self._on_fatal = on_fatal
        self._full = False
        self._set_full(not spare.make())
        self._lost = False
        self._committing = False
        self._last_try = False
        self._tell: Callable[[Sequence[_Outcome]], None] = lambda _: None

    def work(self, tell: Callable[[Sequence[_Outcome]], None]) -> None:
        """Run groups until the queue says None."""
        self._tell = tell
        going = True
        while going:
            jobs, going = self._take()
            try:
                self._reads([job for job in jobs if not job.writes])
                self._writes([job for job in jobs if job.writes])
            except Exception as error:  # noqa: BLE001 - nothing may be left waiting for a dead thread
                self._lose(jobs, f"the store `{self._path}` failed unexpectedly", error)
        with suppress(sqlite3.Error):  # its last checkpoint may find no room; the log keeps everything
            self._connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self.queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP:
                return jobs, True
            try:
                job = self.queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _reads(self, jobs: Sequence[_Job]) -> None:
        if self._lost:
            self._fail(jobs, Unavailable("the store is lost"))
        else:
            self._tell([self._read(job) for job in jobs])

    def _read(self, job: _Job) -> _Outcome:
        changes = self._connection.total_changes
        self._connection.execute("BEGIN")
        outcome = job.run(SqliteTransaction(self._connection, writes=False))
        self._undo()
        if self._connection.total_changes != changes:
            return _Outcome(job, None, RuntimeError("a unit that was handed to `read` changed rows"))
        return outcome

    def _writes(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        if self._lost:
            self._fail(jobs, Unavailable("the store is lost"))
            return
        if self._full and self._spare.make():
            self._set_full(False)
            _log.info("the store has room again", store=str(self._path))
        if self._full:
            self._only_endings(jobs)
        else:
            self._commit(jobs)

    def _only_endings(self, jobs: Sequence[_Job]) -> None:
        self._fail([job for job in jobs if not job.ending], StoreFull("the store is full"))
        for job in jobs:
            if job.ending:
                self._commit([job])

    def _commit(self, jobs: Sequence[_Job]) -> None:
        try:
            outcomes = self._transact(jobs)
        except sqlite3.Error as error:
            self._undo()
            self._recover(jobs, error)
        else:
            self._tell(outcomes)

    def _transact(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        run, self._committing = self._connection.execute, False
        run("BEGIN IMMEDIATE")
        outcomes = []
        for job in jobs:
            run("SAVEPOINT unit")
            tx = SqliteTransaction(self._connection, writes=True)
            outcome = job.run(tx)
            if tx.fault is not None and (not self._connection.in_transaction or self._no_room(tx.fault)):
                raise tx.fault
            if outcome.error is not None:
                run("ROLLBACK TO unit")
            run("RELEASE unit")
            outcomes.append(outcome)
        self._committing = True
        failpoint.reach("store.commit.before")
        begun = self._now()
        run("COMMIT")
        failpoint.reach("store.commit.after")
        self._count(outcomes, self._now() - begun)
        return outcomes

    def _recover(self, jobs: Sequence[_Job], error: sqlite3.Error) -> None:
        """The transaction as a whole failed and was undone: find out what that means for each of `jobs`."""
        if self._no_room(error):
            self._fill(jobs)
        elif self._committing and primary_code(error) == sqlite3.SQLITE_IOERR:
            self._lose(jobs, f"the store `{self._path}` could not be written", error)
        elif len(jobs) == 1:
            self._fail(jobs, translated(error))
        else:
            for job in jobs:
                self._writes([job])

    def _fill(self, jobs: Sequence[_Job]) -> None:
        """Make what room there is and run the endings; one that finds none a second time is refused too."""
        if self._last_try:
            self._fail(jobs, StoreFull("the store is full and its reserve is spent"))
            return
        if not self._full:
            _log.warning("the store is full: only endings are written", store=str(self._path))
        self._set_full(True)
        self._last_try = True
        self._spare.drop()
        with suppress(sqlite3.Error):  # folding the log in may need room as well; then the reserve is all there is
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        self._only_endings(jobs)
        self._last_try = False

    def _no_room(self, error: sqlite3.Error) -> bool:
        code = primary_code(error)
        return code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and not has_room(self._wal))

    def _set_full(self, full: bool) -> None:  # noqa: FBT001 - the fact itself
        self._full = full
        if self._metrics is not None:
            self._metrics.set("sojourn_store_full", full)

    def _count(self, outcomes: Sequence[_Outcome], seconds: float) -> None:
        if self._metrics is None:
            return
        undone = sum(outcome.error is not None for outcome in outcomes)
        self._metrics.count("sojourn_store_commits_total")
        self._metrics.observe("sojourn_store_commit_seconds", seconds)
        self._metrics.count("sojourn_store_units_total", len(outcomes) - undone, outcome="done")
        self._metrics.count("sojourn_store_units_total", undone, outcome="undone")

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _lose(self, jobs: Sequence[_Job], reason: str, cause: Exception) -> None:
        self._lost = True
        lost = Unavailable(f"{reason}: {cause}")
        lost.__cause__ = cause
        self._on_fatal(lost)
        self._fail(jobs, lost)

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        self._tell([_Outcome(job, None, error) for job in jobs])


def _settle_all(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        _settle(outcome.job.future, outcome.value, outcome.error)


def _settle(future: asyncio.Future[Any], value: object, error: Exception | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _connect(path: Path, log_pages: int) -> sqlite3.Connection:
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=512
        )
    except (OSError, sqlite3.Error) as error:
        raise Malformed(f"can't open the store `{path}`: {error}") from error
    try:
        return _prepared(connection, log_pages)
    except sqlite3.Error as error:
        connection.close()
        if primary_code(error) == sqlite3.SQLITE_BUSY:
            raise StoreLocked(f"the store `{path}` is in use by another process") from error
        raise Malformed(f"can't use the store `{path}`: {error}") from error


def _prepared(connection: sqlite3.Connection, log_pages: int) -> sqlite3.Connection:
    connection.row_factory = row_of
    for setting in (
        "locking_mode = EXCLUSIVE",  # first: so the log's index stays in memory and the lock is never given back
        "journal_mode = WAL",
        "synchronous = FULL",
        f"wal_autocheckpoint = {log_pages}",
        "foreign_keys = ON",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {setting}").close()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")
    return connection


def _make_private(path: Path) -> None:
    """Mode 0600 before a byte is in it. SQLite gives its log the same.

    A file that exists is never opened here: closing it again would release the lock another connection of this process
    holds on it, for POSIX locks belong to the process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        path.chmod(0o600)
