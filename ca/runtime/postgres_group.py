"""Groups of units on one connection to PostgreSQL; `postgres.py` says what is promised, here is how it is kept."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ca.errors import Problem, Unavailable
from ca.runtime import failpoint, log
from ca.runtime.clock import Clock
from ca.runtime.database import Unit
from ca.runtime.metrics import Metrics
from ca.runtime.postgres_session import Door, fate
from ca.runtime.postgres_unit import FAILURES, Busy, Connection, Lost, drive, judged

GROUP = 256
"""The most units that share one commit."""

TRIES = 5
"""How often a unit is run before its caller hears that the store is too busy."""

PATIENCE = 30.0
"""Seconds for which we try to learn what became of a COMMIT that was not answered."""

_log = log.get(__name__)


class Undecided(Unavailable):
    """The store may have kept this or not, and can't be asked."""

    code = "undecided"


INSIDE: contextvars.ContextVar[bool] = contextvars.ContextVar("inside_a_unit", default=False)
"""Set in the context of a unit that runs: whoever hands over another unit from there would wait for himself."""


@dataclass(slots=True, eq=False)
class Job:
    """A unit that somebody waits for."""

    unit: Unit[Any]
    future: asyncio.Future[Any]
    context: contextvars.Context
    tries: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    job: Job
    value: Any
    error: Exception | None


@dataclass(slots=True, eq=False)
class Worker:
    """One connection, opened when it is needed, and again when it broke."""

    door: Door
    connection: Connection | None = field(default=None, init=False)

    size = 1
    """The most units it takes at once."""

    async def run(self, jobs: Sequence[Job]) -> None:
        """Carry them out and tell their callers."""
        raise NotImplementedError

    async def ready(self) -> Connection:
        """The connection. Raises as `Door.open`."""
        if self.connection is None or self.connection.is_closed():
            self.connection = await self.door.open()
        return self.connection

    def hang_up(self) -> None:
        """Break it; the next that is needed is a new one."""
        if self.connection is not None:
            self.connection.terminate()
        self.connection = None

    async def close(self) -> None:
        """Take leave."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(*FAILURES):
                await connection.close(timeout=5)

    async def say(self, connection: Connection, words: str) -> None:
        """One of our own words; whatever fails it makes the connection useless."""
        try:
            await connection.execute(words)
        except FAILURES as error:
            raise Lost(type(error).__name__) from None


class _Number(NamedTuple):
    """How a transaction is asked for afterwards: `xid` is None when it wrote nothing; `mark` it holds to its end."""

    xid: str | None
    mark: int


_NUMBER = "SELECT pg_current_xact_id_if_assigned()::text AS xid, pg_advisory_xact_lock($1)"


class Reader(Worker):
    """Runs what is queued over one snapshot: it was all handed over before the snapshot is taken."""

    size = 16

    async def run(self, jobs: Sequence[Job]) -> None:
        """Carry them out and tell their callers."""
        waiting = list(jobs)
        while waiting:
            try:
                await self._over_one_state(waiting)
            except (Lost, Busy) as error:
                self.hang_up()
                waiting = _again(waiting, error)

    async def _over_one_state(self, waiting: list[Job]) -> None:
        connection = await self.ready()
        await self.say(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        while waiting:
            outcome = await _run(connection, waiting[0], writes=False)
            waiting.pop(0)
            _tell([outcome])
            if outcome.error is not None:  # it may have been a statement's, and PostgreSQL answers nothing after that
                break
        await self.say(connection, "ROLLBACK")


class Writer(Worker):
    """Runs groups."""

    size = GROUP

    def __init__(self, door: Door, metrics: Metrics | None, clock: Clock) -> None:
        super().__init__(door)
        self._metrics, self._clock = metrics, clock

    async def run(self, jobs: Sequence[Job]) -> None:
        """Carry them out and tell their callers."""
        waiting = list(jobs)
        while waiting:
            try:
                waiting = await self._group(waiting)
            except Lost as error:
                self.hang_up()
                waiting = _again(waiting, error)
                if len(waiting) > 1 and any(job.tries > 1 for job in waiting):  # one of them may be to blame
                    for job in waiting:
                        await self.run([job])
                    return

    async def _group(self, jobs: list[Job]) -> list[Job]:
        """Run as many as share a commit; answers those that are to be run in another one."""
        connection, alone = await self.ready(), len(jobs) == 1
        await self.say(connection, "BEGIN" if alone else "BEGIN; SET LOCAL lock_timeout = '100ms'; SAVEPOINT unit")
        done: list[Outcome] = []
        for position, job in enumerate(jobs):
            try:
                outcome = await _run(connection, job, writes=True)
            except Busy as error:
                await self._give_way(connection, done, alone=alone)
                return await self._alone(job, error, alone=alone) + jobs[position + 1 :]
            done.append(outcome)
            if alone:
                return await self._finish_one(connection, outcome)
            undo = "" if outcome.error is None else "ROLLBACK TO unit; "
            await self.say(connection, f"{undo}RELEASE unit" + ("; SAVEPOINT unit" if job is not jobs[-1] else ""))
        await self._commit(connection, done)
        return []

    async def _finish_one(self, connection: Connection, outcome: Outcome) -> list[Job]:
        if outcome.error is None:
            await self._commit(connection, [outcome])
            return []
        await self.say(connection, "ROLLBACK")
        self._answer([outcome], None)
        return []

    async def _give_way(self, connection: Connection, done: list[Outcome], *, alone: bool) -> None:
        """Let go of every lock: commit what is done."""
        if alone or not done:
            await self.say(connection, "ROLLBACK")
            return
        await self.say(connection, "ROLLBACK TO unit; RELEASE unit")
        await self._commit(connection, done)

    async def _alone(self, job: Job, error: Busy, *, alone: bool) -> list[Job]:
        job.tries += alone
        if job.tries >= TRIES:
            fail([job], Unavailable(f"the store was too busy with others ({error})"))
        elif alone:
            return [job]
        else:
            await self.run([job])
        return []

    async def _commit(self, connection: Connection, done: list[Outcome]) -> None:
        """Make a group durable and tell it."""
        number = await self._number(connection)
        failpoint.reach("store.commit.before")
        begun = self._clock.boot()
        try:
            await connection.execute("COMMIT")
        except FAILURES as error:
            refusal = judged(connection, error)
            if not isinstance(refusal, Lost):
                await self._refused(done, refusal)
                return
            self.hang_up()
            await self._learn(done, number)
            return
        failpoint.reach("store.commit.after")
        self._answer(done, self._clock.boot() - begun)

    async def _refused(self, done: list[Outcome], refusal: Exception) -> None:
        """A deferred constraint spoke up at COMMIT: whose it is shows when each is run alone."""
        if len(done) == 1 and not isinstance(refusal, Busy):
            _tell([Outcome(done[0].job, None, refusal)])
            return
        for job in _again([outcome.job for outcome in done], refusal):
            await self.run([job])

    async def _number(self, connection: Connection) -> _Number:
        mark = secrets.randbelow(2**62) + 1
        try:
            row = await connection.fetchrow(_NUMBER, mark)
        except FAILURES as error:
            raise Lost(type(error).__name__) from None
        return _Number(row["xid"] if row else None, mark)

    async def _learn(self, done: list[Outcome], number: _Number) -> None:
        """A COMMIT was not answered. Raises Lost when it is known that nothing of it is durable."""
        try:
            committed = number.xid is not None and await self._was_committed(number.xid, number.mark)
        except Undecided as error:
            fail([outcome.job for outcome in done], error)
            return
        if not committed:
            raise Lost("the transaction was undone")
        self._answer(done, None)

    async def _was_committed(self, xid: str, mark: int) -> bool:
        until = self._clock.boot() + PATIENCE
        while True:
            try:
                found = await fate(await self.ready(), xid, mark)
            except (*FAILURES, Problem):
                self.hang_up()
                if self._clock.boot() > until:
                    raise Undecided("the store was lost in the middle of a commit") from None
                await self._clock.sleep(0.2)
                continue
            if found is None:
                raise Undecided("the store no longer knows what became of a commit")
            _log.warning("a commit was not answered", outcome=found)
            return found == "committed"

    def _answer(self, done: Sequence[Outcome], seconds: float | None) -> None:
        if self._metrics is not None:
            undone = sum(outcome.error is not None for outcome in done)
            if seconds is not None:
                self._metrics.count("sojourn_store_commits_total")
                self._metrics.observe("sojourn_store_commit_seconds", seconds)
            self._metrics.count("sojourn_store_units_total", len(done) - undone, outcome="done")
            self._metrics.count("sojourn_store_units_total", undone, outcome="undone")
        _tell(done)


async def _run(connection: Connection, job: Job, *, writes: bool) -> Outcome:
    """Drive one unit. Raises Lost, Busy."""
    job.context.run(INSIDE.set, True)
    try:
        return Outcome(job, await drive(connection, job.unit, job.context, writes=writes), None)
    except (Lost, Busy):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
        return Outcome(job, None, error)


def _again(jobs: Sequence[Job], error: Exception) -> list[Job]:
    """Those that have not been tried too often; the others hear of it."""
    left = []
    for job in jobs:
        if job.future.done():
            continue
        job.tries += 1
        if job.tries < TRIES:
            left.append(job)
        else:
            fail([job], Unavailable(f"the store does not work ({error})"))
    return left


def _tell(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.job.future.done():  # its caller was cancelled
            continue
        if outcome.error is None:
            outcome.job.future.set_result(outcome.value)
        else:
            outcome.job.future.set_exception(outcome.error)


def fail(jobs: Sequence[Job], error: Exception) -> None:
    """Tell those that wait for them that they failed."""
    _tell([Outcome(job, None, error) for job in jobs])
