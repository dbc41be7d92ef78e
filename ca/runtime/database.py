"""Where a process keeps what must survive it: one protocol, one SQL text, several drivers.

All work is done in *units*: an `async def` that takes a `Transaction` and awaits nothing else. A unit may be run again
from its beginning, alone or in a group with others, so it must have no effect outside its transaction.

    async def close(tx: Transaction) -> int:
        return await tx.execute("UPDATE leases SET state = 'revoked' WHERE id = $1 AND version = $2", lease, version)

    changed = await database.write(close)

`write` returns when the unit is durable. Five rules keep the SQL common to SQLite and PostgreSQL: identifiers are made
in Python; times are BIGINT microseconds passed in; JSON is TEXT; every change of state is a compare-and-swap; there are
no arrays. `$n` names the n-th argument, in any order and any number of times. Always say ORDER BY.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, LiteralString, Protocol, TypeVar

from ca.errors import Problem, Unavailable

Value = int | str | bytes | bool | None
Row = Mapping[str, Any]
T = TypeVar("T")


class Transaction(Protocol):
    """What a unit may do."""

    async def fetch(self, sql: LiteralString, *args: Value) -> Sequence[Row]:
        """Every row, in the order asked for."""

    async def fetchrow(self, sql: LiteralString, *args: Value) -> Row | None:
        """The first row, or None."""

    async def execute(self, sql: LiteralString, *args: Value) -> int:
        """Run one statement; answers how many rows it changed."""


Unit = Callable[[Transaction], Coroutine[Any, Any, T]]


class Database(Protocol):
    """A store. Units of one process see one another's effects in the order in which they were committed."""

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing, over one consistent state."""

    async def write(self, unit: Unit[T], *, ending: bool = False) -> T:
        """Run a unit and make it durable; whatever it raises undoes it alone and is raised here.

        `ending` marks a unit that takes access away: it may use the reserve that is kept for the day the disk is full.

        Raises:
            StoreFull: no space is left for a unit that is not `ending`.
        """


class StoreFull(Unavailable):
    """The store can't grow: what gives access stops, what ends it goes on from the reserve."""

    code = "store-full"


class StoreLocked(Problem):
    """Another process holds this store."""

    code = "store-locked"
