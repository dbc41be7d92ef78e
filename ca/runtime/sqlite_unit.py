"""One unit on one SQLite connection: its statements, how it is driven, and what its failures become.

Everything here happens on the writer thread of `ca/runtime/sqlite.py`.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

from ca.errors import Conflict, Malformed, Problem, Unavailable
from ca.runtime.database import Duplicate, Row, StoreFull, Unit, Value
from ca.runtime.sql import numbered
from ca.runtime.values import bindable

_UNIQUE = frozenset(
    {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
)
_SICK = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
    }
)


class SqliteTransaction:
    """What a unit may do on SQLite.

    A statement that fails ends its unit, as it does on PostgreSQL: whatever comes after it is refused, and a unit that
    swallows the failure fails with it. `fault` is the first error of SQLite's own.
    """

    def __init__(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        self._connection = connection
        self._writes = writes
        self._over = False
        self.fault: sqlite3.Error | None = None
        self.failure: Exception | None = None

    async def fetch(self, sql: LiteralString, *args: Value) -> Sequence[Row]:
        """Every row, in the order asked for."""
        rows: Sequence[Row] = self._run(sql, args, lambda cursor: cursor.fetchall())
        return rows

    async def fetchrow(self, sql: LiteralString, *args: Value) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._run(sql, args, lambda cursor: cursor.fetchone())
        return row

    async def execute(self, sql: LiteralString, *args: Value) -> int:
        """Run one statement; answers how many rows it changed."""
        if not self._writes:
            raise RuntimeError("a unit that was handed to `read` must not `execute`")

        def changed(cursor: sqlite3.Cursor) -> int:
            cursor.fetchall()
            return max(0, cursor.rowcount)

        count: int = self._run(sql, args, changed)
        return count

    def end(self) -> None:
        """Nothing may be done any more."""
        self._over = True

    def _run(self, sql: str, args: Sequence[Value], take: Callable[[sqlite3.Cursor], Any]) -> Any:
        if self._over:
            raise RuntimeError("a transaction was used after its unit had ended")
        if self.failure is not None:
            raise RuntimeError("a unit went on after one of its statements had failed") from self.failure
        try:
            cursor = self._connection.execute(numbered(sql), [bindable(value) for value in args])
            try:
                return take(cursor)
            finally:
                cursor.close()
        except sqlite3.Error as error:
            self.fault, self.failure = error, translated(error)
            raise self.failure from error
        except Exception as error:
            self.failure = error
            raise


def drive(unit: Unit[Any], tx: SqliteTransaction) -> Any:
    """Run `unit` to its end on this thread; raises what it raises, RuntimeError if it waits for anything else."""
    coroutine = unit(tx)
    if not inspect.iscoroutine(coroutine):
        raise RuntimeError("a unit must be an `async def`")
    try:
        coroutine.send(None)
    except StopIteration as done:
        if tx.failure is not None:
            raise tx.failure from None
        return done.value
    else:
        tx.end()
        coroutine.close()
        raise RuntimeError("a unit awaited something other than its transaction")
    finally:
        tx.end()


def row_of(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    """A row as a mapping from column to value."""
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the error is Python's own."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def translated(error: sqlite3.Error) -> Exception:
    """What a caller should hear. SQLite names columns and tables in its messages, never values."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return _conflict(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("the store is full")
    if code == sqlite3.SQLITE_TOOBIG:
        return Malformed("a value is longer than the store can hold")
    if code in _SICK:
        return Unavailable(f"the store does not work: {error}")
    return RuntimeError(f"SQLite refused a statement: {error}")


def _conflict(error: sqlite3.Error) -> Problem:
    if error.sqlite_errorcode in _UNIQUE:
        return Duplicate("there is one like it already")
    return Conflict(f"the store's rules forbid it: {error}")
