"""Rows that can't be read: one stops no other. Each is set aside once, and kept until somebody mended it.

What reads a list raises `Unreadable` at the first bad row; `Guarded` notes it, which takes it out of every list, and
runs the unit again. Whoever asks for that very row is told that it can't be read. What a lease that was set aside
stands for outside is neither destroyed nor forgotten: it is ours, and nobody knows in which state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import LiteralString, TypeVar

from ca.errors import Problem, Unavailable
from ca.runtime import log
from ca.runtime.bell import Pull, Ringing
from ca.runtime.clock import Clock, micros
from ca.runtime.database import Database, Row, Transaction, Unit

T = TypeVar("T")
_log = log.get(__name__)

_MOST = 1000
"""Bad rows that one unit may meet before it is given up for now."""

_MARKED: Mapping[str, LiteralString] = {
    "leases": "UPDATE leases SET set_aside = $2 WHERE id = $1",
    "outbox": "UPDATE outbox SET set_aside = $2 WHERE id = $1",
}
"""How a row of a table is taken out of its lists. A task's row stays: its end must still be found."""


class Unreadable(Unavailable):
    """A row of our own store that can't be read."""

    code = "unreadable-row"

    def __init__(self, table: str, key: str, reason: str) -> None:
        super().__init__(f"the row `{key[:60]}` of `{table}` can't be read, it was set aside", table=table)
        self.table, self.key, self.reason = table, key, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A row that was set aside, and why."""

    table: str
    key: str
    reason: str
    since: int


def read(table: str, key: str, row: Row, value: Callable[[Row], T]) -> T:
    """A row as a value. Raises Unreadable."""
    try:
        return value(row)
    except (Problem, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Unreadable(table, key, f"{type(error).__name__}: {error}"[:200]) from error


async def put(tx: Transaction, bad: Unreadable, since: int) -> bool:
    """Set a row aside; whether it was not before."""
    fresh = await tx.execute(
        "INSERT INTO quarantine (tab, id, reason, since) VALUES ($1, $2, $3, $4) ON CONFLICT (tab, id) DO NOTHING",
        bad.table,
        bad.key,
        bad.reason,
        since,
    )
    if bad.table in _MARKED:
        await tx.execute(_MARKED[bad.table], bad.key, since)
    return fresh == 1


async def all_of(tx: Transaction, limit: int = 1000) -> Sequence[Quarantined]:
    """What was set aside, by table."""
    rows = await tx.fetch("SELECT * FROM quarantine ORDER BY tab, id LIMIT $1", limit)
    return [Quarantined(table=row["tab"], key=row["id"], reason=row["reason"], since=row["since"]) for row in rows]


async def count(tx: Transaction) -> Mapping[str, int]:
    """Table → how many of its rows were set aside."""
    rows = await tx.fetch("SELECT tab, COUNT(*) AS n FROM quarantine GROUP BY tab ORDER BY tab")
    return {row["tab"]: int(row["n"]) for row in rows}


async def give_up(tx: Transaction, what: str, now: int) -> Sequence[tuple[str, str]]:
    """Close leases that were set aside, though nobody can read them; each with its task.

    `what` is `lease:<id>` or `target:<name>`. They are found by no list of what can't be read any more.
    """
    kind, _, name = what.partition(":")
    which: LiteralString = "target = $1" if kind == "target" else "id = $1"
    rows = await tx.fetch(
        f"UPDATE leases SET state = 'disowned', closed_at = $2 WHERE {which} AND set_aside IS NOT NULL"
        " AND closed_at IS NULL RETURNING id, task",
        name,
        now,
    )
    for row in rows:
        await tx.execute("DELETE FROM quarantine WHERE tab = 'leases' AND id = $1", row["id"])
    return [(row["id"], row["task"]) for row in rows]


@dataclass(slots=True)
class Guarded:
    """A store whose bad rows are set aside as they are met."""

    inner: Database
    clock: Clock

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing. Raises Unreadable: it is about the bad row itself."""
        for _ in range(_MOST):
            try:
                return await self.inner.read(unit)
            except Unreadable as bad:
                await self._set_aside(bad)
        raise Unavailable("too many rows of the store can't be read")

    async def write(self, unit: Unit[T], *, ending: bool = False) -> T:
        """Run a unit and make it durable. Raises Unreadable: it is about the bad row itself."""
        for _ in range(_MOST):
            try:
                return await self.inner.write(unit, ending=ending)
            except Unreadable as bad:
                await self._set_aside(bad)
        raise Unavailable("too many rows of the store can't be read")

    async def _set_aside(self, bad: Unreadable) -> None:
        since = micros(self.clock.now())
        if not await self.inner.write(lambda tx: put(tx, bad, since), ending=True):
            raise bad
        _log.error("a row of the store can't be read and was set aside", table=bad.table, row=bad.key, why=bad.reason)


@dataclass(slots=True)
class GuardedRinging(Guarded):
    """The same of a store that carries a word to others."""

    ringing: Ringing

    def bell(self, name: str, heard: Callable[[], object], clock: Clock) -> AbstractAsyncContextManager[Pull]:
        """As `ca.runtime.bell.open_bell`."""
        return self.ringing.bell(name, heard, clock)


def guarded(database: Database, clock: Clock) -> Database:
    """`database`, with every bad row set aside as it is met."""
    if isinstance(database, Ringing):
        return GuardedRinging(database, clock, database)
    return Guarded(database, clock)
