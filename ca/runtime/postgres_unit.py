"""One unit on PostgreSQL: its statements, how it is driven, and what its failures become.

A unit asks by yielding an `Ask` to whoever drives it, so one that awaits anything else is found out, as on SQLite.

PostgreSQL puts values into its messages ("Key (id)=(…) already exists"), and asyncpg into its own. Nothing of either is
kept but the error's code and the names of a constraint; a message only where it speaks of the statement alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import asyncpg

from ca.errors import Conflict, Malformed, Unavailable
from ca.runtime.database import Duplicate, Row, StoreFull, Unit, Value
from ca.runtime.sql import numbered
from ca.runtime.values import bindable

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    Connection = asyncpg.Connection  # generic in the stubs only

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything a call can raise; the internal one when the server's farewell arrives just before our statement leaves."""

_GOODBYE = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""The server ends the session."""

_BUSY = frozenset({"40001", "40P01", "55P03"})
"""Somebody else held what the unit needed: it may be run again from its beginning."""


_MADE_AT_ONCE = frozenset({"42P07", "42710"})
"""A table, or its type: IF NOT EXISTS does not help those who look at the same moment."""


class Lost(Exception):
    """The connection is of no use any more; nothing that was not committed is durable."""


class Busy(Exception):
    """A lock, a deadlock or a stale plan: the statement's unit may be run again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A statement that a unit waits for."""

    take: Callable[[Connection, str, Sequence[Value]], Any]
    sql: str
    args: Sequence[Value]

    def __await__(self) -> Generator[Ask, Any, Any]:
        return (yield self)


class PostgresTransaction:
    """What a unit may do on PostgreSQL. After a statement that failed everything else is refused."""

    def __init__(self, *, writes: bool) -> None:
        self._writes = writes
        self._over = False
        self.failure: Exception | None = None

    async def fetch(self, sql: LiteralString, *args: Value) -> Sequence[Row]:
        """Every row, in the order asked for."""
        rows: Sequence[Row] = await self._ask(_rows, sql, args)
        return rows

    async def fetchrow(self, sql: LiteralString, *args: Value) -> Row | None:
        """The first row, or None."""
        rows: Sequence[Row] = await self._ask(_rows, sql, args)
        return rows[0] if rows else None

    async def execute(self, sql: LiteralString, *args: Value) -> int:
        """Run one statement; answers how many rows it changed."""
        if not self._writes:
            raise RuntimeError("a unit that was handed to `read` must not `execute`")
        count: int = await self._ask(_changed, sql, args)
        return count

    def end(self) -> None:
        """Nothing may be done any more."""
        self._over = True

    async def _ask(self, take: Callable[..., Any], sql: str, args: Sequence[Value]) -> Any:
        if self._over:
            raise RuntimeError("a transaction was used after its unit had ended")
        if self.failure is not None:
            raise RuntimeError("a unit went on after one of its statements had failed") from self.failure
        try:
            numbered(sql)  # PostgreSQL reads it as it stands; the check is the same on every store
            return await Ask(take, sql, [bindable(value) for value in args])
        except Exception as error:
            self.failure = error
            raise


async def drive(connection: Connection, unit: Unit[Any], context: Context, *, writes: bool) -> Any:
    """Run `unit` to its end in the context of its caller; raises what it raises.

    Raises:
        Lost, Busy: the unit was left where it was, and may be run again once its transaction is undone.
        RuntimeError: it waited for anything other than its transaction.
    """
    tx = PostgresTransaction(writes=writes)
    coroutine = context.run(unit, tx)
    if not inspect.iscoroutine(coroutine):
        raise RuntimeError("a unit must be an `async def`")
    send, answer = coroutine.send, None
    try:
        while True:
            asked = _step(context, send, answer)
            if not isinstance(asked, Ask):
                tx.end()
                raise RuntimeError("a unit awaited something other than its transaction")  # noqa: TRY004
            send, answer = await _perform(connection, asked, coroutine, writes=writes)
    except StopIteration as done:
        if tx.failure is not None:
            raise tx.failure from None
        return done.value
    finally:
        tx.end()
        coroutine.close()


def _step(context: Context, send: Callable[[Any], Any], answer: Any) -> Any:
    try:
        return context.run(send, answer)
    except Exception:
        raise
    except BaseException as error:  # SystemExit in a unit must not end the writer
        raise RuntimeError(f"a unit raised `{type(error).__name__}`") from error


async def _perform(
    connection: Connection, asked: Ask, coroutine: Any, *, writes: bool
) -> tuple[Callable[[Any], Any], Any]:
    """How the unit goes on: by an answer sent, or by an error thrown into it."""
    refusal: Exception
    try:
        return coroutine.send, await asked.take(connection, asked.sql, asked.args)
    except FAILURES as error:
        refusal = judged(connection, error, writes=writes)
    if isinstance(refusal, (Lost, Busy)):
        raise refusal
    return coroutine.throw, refusal


async def _rows(connection: Connection, sql: str, args: Sequence[Value]) -> Any:
    return await connection.fetch(sql, *args)


async def _changed(connection: Connection, sql: str, args: Sequence[Value]) -> int:
    status = await connection.execute(sql, *args) if args else await _alone(connection, sql)
    count = status.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


async def _alone(connection: Connection, sql: str) -> str:
    """Without arguments asyncpg would send a text of many statements as it is; a prepared one is one."""
    prepared = await connection.prepare(sql)
    await prepared.fetch()
    return prepared.get_statusmsg() or ""


def judged(connection: Connection, error: BaseException, *, writes: bool = True) -> Exception:
    """What a failed call means: Lost, Busy, or what its caller should hear; never with a value in it."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return Busy("the tables changed under a prepared statement")
    if isinstance(error, asyncpg.PostgresError):
        return _refused(error, writes=writes)
    if isinstance(error, asyncpg.InterfaceError) and not connection.is_closed():
        return RuntimeError(f"a statement and its arguments don't fit ({type(error).__name__})")
    return Lost(type(error).__name__)


def _refused(error: asyncpg.PostgresError, *, writes: bool) -> Exception:
    code = getattr(error, "sqlstate", None) or "?????"
    name = f"{code} {type(error).__name__}"
    if code in _GOODBYE or code.startswith("08") or (writes and code == "25006"):  # it became a standby
        return Lost(name)
    if code in _BUSY:
        return Busy(name)
    if code == "23505":
        return Duplicate("there is one like it already")
    if code.startswith("23"):
        return Conflict(f"the store's rules forbid it: {getattr(error, 'constraint_name', None) or name}")
    if code == "53100":
        return StoreFull("the store is full")
    if code.startswith("54") or code == "22001":
        return Malformed("a value is longer than the store can hold")
    if code == "42501":
        return Unavailable("the store's role may not do this: it must own its tables")
    if code in _MADE_AT_ONCE:
        return Duplicate(f"there is one like it already: {error.args[0]}")
    if code.startswith("42"):  # speaks of the statement, whose values are never in it
        return RuntimeError(f"PostgreSQL refused a statement: {error.args[0]} ({name})")
    if code.startswith(("22", "25", "0A", "2F", "3")):
        return RuntimeError(f"PostgreSQL refused a statement ({name})")
    return Unavailable(f"the store does not work ({name})")
