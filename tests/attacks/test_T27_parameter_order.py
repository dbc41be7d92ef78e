"""Traps 27: SQLite takes `$2` for a name and binds by first appearance, so a swap of two columns goes unnoticed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ca.runtime.database import Transaction
from fakes.stores import DRIVERS


def test_left_alone_sqlite_swaps_the_values() -> None:
    """The trap is real: without rewriting, (1, 2) for ($2, $1) stores 1 in the first column."""
    with sqlite3.connect(":memory:") as connection:
        row = connection.execute("SELECT $2, $1", {"2": "second", "1": "first"}).fetchone()
        assert row == ("second", "first")
        names = connection.execute("SELECT ?2, ?1", ("first", "second")).fetchone()
        assert names == ("second", "first")
    connection.close()


@pytest.mark.parametrize("driver", sorted(DRIVERS))
async def test_a_task_and_its_owner_are_never_swapped(driver: str, tmp_path: Path) -> None:
    """Two texts that fit either column, written in the other order than the arguments come."""

    async def unit(tx: Transaction) -> dict[str, object]:
        await tx.execute("CREATE TABLE held (task TEXT NOT NULL, owner TEXT NOT NULL)")
        await tx.execute("INSERT INTO held (owner, task) VALUES ($2, $1)", "task-1", "mallory")
        await tx.execute("UPDATE held SET owner = $3, task = $2 WHERE task = $1 OR owner = $3", "task-1", "t2", "me")
        row = await tx.fetchrow("SELECT task, owner FROM held WHERE $2 = owner AND $1 = task", "t2", "me")
        return dict(row or {})

    async with DRIVERS[driver](tmp_path) as store:
        assert await store.write(unit) == {"task": "t2", "owner": "me"}


@pytest.mark.parametrize("driver", sorted(DRIVERS))
@pytest.mark.parametrize("sql", ["SELECT $2 AS a", "SELECT $1 AS a, $3 AS b", "SELECT $0 AS a"])
async def test_a_forgotten_parameter_is_refused_and_not_bound_to_a_neighbour(
    driver: str, sql: str, tmp_path: Path
) -> None:
    """A gap in the numbers is a slip of the author, found at the first run."""

    async def unit(tx: Transaction) -> None:
        await tx.fetch(sql, "a", "b", "c")

    async with DRIVERS[driver](tmp_path) as store:
        with pytest.raises(RuntimeError, match="without a gap"):
            await store.write(unit)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
@pytest.mark.parametrize("args", [(), ("a",), ("a", "b", "c")])
async def test_too_few_or_too_many_arguments_are_refused(driver: str, args: tuple[str, ...], tmp_path: Path) -> None:
    """Never filled up with NULL, never cut."""

    async def unit(tx: Transaction) -> None:
        await tx.fetch("SELECT $1 AS a, $2 AS b", *args)

    async with DRIVERS[driver](tmp_path) as store:
        with pytest.raises(RuntimeError):
            await store.read(unit)
