"""Where a process keeps what must survive it: one protocol, one SQL text, several drivers.

All work is done in *units*: an `async def` that takes a `Transaction` and awaits nothing else. A unit may be run again
from its beginning, alone or in a group with others, so it must have no effect outside its transaction.

    async def close(tx: Transaction) -> int:
        return await tx.execute("UPDATE leases SET state = 'revoked' WHERE id = $1 AND version = $2", lease, version)

    changed = await database.write(close)

`write` returns when the unit is durable. A statement that fails ends its unit: PostgreSQL refuses whatever follows it,
so every driver does. Catch `Duplicate` around `write`, or say ON CONFLICT.

Five rules keep the SQL common to SQLite and PostgreSQL: identifiers are made in Python; times are BIGINT microseconds
passed in; JSON is TEXT; every change of state is a compare-and-swap; there are no arrays. `$n` names the n-th argument,
in any order and any number of times. Booleans may come back as 0 and 1. Always say ORDER BY.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, LiteralString, Protocol, TypeVar

from ca.errors import Conflict, Malformed, Problem, Unavailable
from ca.runtime import postgres_address
from ca.runtime.metrics import Metrics
from ca.runtime.sql import statements

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


class Duplicate(Conflict):
    """A row that must be the only one of its kind is there already."""

    code = "duplicate"


class WrongSchema(Problem):
    """The store was written by another version than the one that opens it."""

    code = "wrong-schema"


DRIVERS: Mapping[str, str] = {
    "sqlite": "ca.runtime.sqlite:open_at",
    "postgres": "ca.runtime.postgres:open_postgres",
    "postgresql": "ca.runtime.postgres:open_postgres",
}
"""What stands before the first colon of a store's address, and who opens it."""

EXPECTED = "`sqlite:/absolute/path` or `postgresql://user@host/database?password=file:/path`"


def checked(url: str) -> str:
    """`url`, if it can name a store: for settings. Raises Malformed, without repeating what may hold a password."""
    kind, _, place = url.partition(":")
    if kind not in DRIVERS or not place.startswith("/"):
        raise Malformed(f"the store's address names no store: expected {EXPECTED}")
    if kind != "sqlite":
        postgres_address.parse(url)
    return url


@asynccontextmanager
async def open_database(url: str, *, metrics: Metrics | None = None) -> AsyncIterator[Database]:
    """Open the store an operator named: `sqlite:/absolute/path`, or PostgreSQL as `ca.runtime.postgres_address` reads.

    Raises:
        Malformed: no such kind of store, or its address can't be read.
        StoreLocked: another process holds it (SQLite).
        Unavailable, Unsafe: the server does not answer, or is not to be relied on (PostgreSQL).
    """
    module, _, name = DRIVERS[checked(url).partition(":")[0]].partition(":")
    async with getattr(importlib.import_module(module), name)(url, metrics=metrics) as database:
        yield database


async def migrate(database: Database, package: str, folder: Traversable) -> None:
    """Bring the tables of `package` up to the newest `NNNN_name.sql` in `folder`, one transaction for each file.

    Several servers may do so at once over one PostgreSQL: each file is applied by one of them.

    Raises:
        WrongSchema: the store is newer than `folder`, or a file changed after it was applied.
        StoreFull: there is something to apply and no room for it.
    """
    files = _migrations(folder)
    applied = await _applied(database, package, files)
    while applied < len(files):
        try:
            await database.write(files[applied].unit(package))
        except Duplicate:  # another server, started beside us, wrote its row first
            if await _applied(database, package, files) == applied:
                raise
        applied = await _applied(database, package, files)


async def _applied(database: Database, package: str, files: Sequence[_Migration]) -> int:
    """How many files were applied; each was looked at."""

    async def prepare(tx: Transaction) -> Sequence[Row]:
        await tx.execute(_MIGRATIONS)
        return await tx.fetch("SELECT number, name, digest FROM migrations WHERE package = $1 ORDER BY number", package)

    # It changes nothing on a store that has the table, so a full disk does not keep a broker from starting.
    try:
        rows = await database.write(prepare, ending=True)
    except Duplicate:  # two servers made the table at once; one of them did
        rows = await database.write(prepare, ending=True)
    for row in rows:
        _check(package, row, files)
    return len(rows)


_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS migrations (
        package TEXT NOT NULL, number BIGINT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (package, number)
    )
"""
_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Migration:
    number: int
    name: str
    digest: str
    statements: Sequence[str]

    def unit(self, package: str) -> Unit[None]:
        async def apply(tx: Transaction) -> None:
            await tx.execute(  # first, so that of several servers one goes on and the others wait for it
                "INSERT INTO migrations (package, number, name, digest) VALUES ($1, $2, $3, $4)",
                package,
                self.number,
                self.name,
                self.digest,
            )
            for statement in self.statements:
                await tx.execute(statement)

        return apply


def _migrations(folder: Traversable) -> list[_Migration]:
    found: list[_Migration] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(file.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise RuntimeError(f"`{file.name}` is not the next migration: expected `{len(found) + 1:04}_name.sql`")
        content = file.read_bytes()
        found.append(
            _Migration(
                number=int(match[1]),
                name=match[2],
                digest=hashlib.sha256(content).hexdigest(),
                statements=statements(content.decode()),
            )
        )
    return found


def _check(package: str, row: Row, files: Sequence[_Migration]) -> None:
    number, label = row["number"], f"migration {row['number']:04} (`{row['name']}`) of `{package}`"
    if number > len(files):
        raise WrongSchema(f"the store already has {label}, which this version does not know: start a newer version")
    if files[number - 1].digest != row["digest"]:
        raise WrongSchema(f"{label} was applied to the store in another form: start the version that wrote the store")
