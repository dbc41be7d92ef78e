"""What every `Database` promises about parameters, values and answers, driver by driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.runtime.database import Database, Transaction
from fakes.stores import DRIVERS, create, ids, insert

LARGEST = 2**63 - 1


@pytest.fixture(params=sorted(DRIVERS))
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A store with two tables."""
    async with DRIVERS[request.param](tmp_path) as store:
        await store.write(create)
        yield store


async def test_parameters_are_bound_by_number_in_any_order_and_any_number_of_times(database: Database) -> None:
    """`$2` is the second argument wherever it stands."""

    async def unit(tx: Transaction) -> list[object]:
        await tx.execute("INSERT INTO item (a, id) VALUES ($2, $1)", 1, "second")
        await tx.execute("UPDATE item SET n = $2, a = $3 WHERE id = $1 AND id = $1 AND a = $4", 1, 7, "third", "second")
        row = await tx.fetchrow("SELECT id, a, n FROM item WHERE a = $1 OR a = $1", "third")
        return [] if row is None else [row["id"], row["a"], row["n"]]

    assert await database.write(unit) == [1, "third", 7]


async def test_a_dollar_in_a_string_a_comment_or_a_name_is_no_parameter(database: Database) -> None:
    """Only what is SQL is rewritten."""

    async def unit(tx: Transaction) -> dict[str, object]:
        row = await tx.fetchrow(
            """SELECT '$2 it''s ? $9' AS a, "item"."id" AS "b$3" /* $4; */ FROM item -- $5
               WHERE id = $1 ORDER BY id""",
            1,
        )
        return dict(row or {})

    await database.write(insert(1))
    assert await database.read(unit) == {"a": "$2 it's ? $9", "b$3": 1}


async def test_every_kind_of_value_comes_back_as_it_went(database: Database) -> None:
    """Large numbers, bytes, text beyond ASCII and NULL."""
    written = [(1, "", b""), (LARGEST, "naïve ☃ 𝄞 '\";--", bytes(range(256))), (-(2**63), None, None)]

    async def unit(tx: Transaction) -> list[tuple[object, ...]]:
        for row in written:
            await tx.execute("INSERT INTO item (id, a, b) VALUES ($1, $2, $3)", *row)
        return [(row["id"], row["a"], row["b"]) for row in await tx.fetch("SELECT id, a, b FROM item ORDER BY id")]

    assert await database.write(unit) == sorted(written)


async def test_a_true_stays_true(database: Database) -> None:
    """Booleans may come back as 0 and 1, which is as true as before."""

    async def unit(tx: Transaction) -> list[bool]:
        for number, value in enumerate((True, False)):
            await tx.execute("INSERT INTO item (id, n) VALUES ($1, $2)", number, int(value))
        return [bool(row["n"]) for row in await tx.fetch("SELECT n FROM item ORDER BY id")]

    assert await database.write(unit) == [True, False]


@pytest.mark.parametrize("value", [2**63, "nul\0", "half \ud800"])
async def test_a_value_no_store_can_keep_is_refused_the_same_everywhere(database: Database, value: int | str) -> None:
    """A number of 65 bits, NUL and half a surrogate pair: sent by somebody, so Malformed."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id, a) VALUES (1, NULL)")
        await tx.execute("UPDATE item SET a = $1", value)

    with pytest.raises(Malformed):
        await database.write(unit)
    assert await ids(database) == []


async def test_execute_answers_how_many_rows_it_changed(database: Database) -> None:
    """So a compare-and-swap knows whether it won."""

    async def unit(tx: Transaction) -> list[int]:
        return [
            await tx.execute("INSERT INTO item (id, n) VALUES (1, 0), (2, 0), (3, 1)"),
            await tx.execute("UPDATE item SET n = 5 WHERE n = $1", 0),
            await tx.execute("UPDATE item SET n = 5 WHERE n = $1", 0),
            await tx.execute("INSERT INTO item (id) VALUES (1) ON CONFLICT DO NOTHING"),
            await tx.execute("UPDATE item SET a = 'x' WHERE n = $1 RETURNING id", 5),
        ]

    assert await database.write(unit) == [3, 2, 0, 0, 2]


async def test_returning_answers_rows(database: Database) -> None:
    """The one counter row of the epoch is moved and read in one statement."""

    async def unit(tx: Transaction) -> int:
        await tx.execute("INSERT INTO item (id, n) VALUES (1, 41)")
        row = await tx.fetchrow("UPDATE item SET n = n + 1 WHERE id = $1 RETURNING n", 1)
        assert row is not None
        assert await tx.fetchrow("SELECT n FROM item WHERE id = $1", 2) is None
        return int(row["n"])

    assert await database.write(unit) == 42
