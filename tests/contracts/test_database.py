"""What every `Database` promises about its units, driver by driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ca.errors import Conflict, Malformed, Problem, Unavailable
from ca.runtime.database import Database, Duplicate, StoreLocked, Transaction, Unit, open_database
from fakes.stores import DRIVERS, Elsewhere, Opener, create, ids, insert


@pytest.fixture(params=sorted(DRIVERS))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same store again and again."""
    return lambda: DRIVERS[request.param](tmp_path)


@pytest.fixture
async def database(opener: Opener) -> AsyncIterator[Database]:
    """A store with two tables."""
    async with opener() as store:
        await store.write(create)
        yield store


async def test_a_failing_unit_among_fifty_is_undone_alone(database: Database) -> None:
    """They share commits, not fates."""

    def unit(number: int) -> Unit[int]:
        async def work(tx: Transaction) -> int:
            await tx.execute("INSERT INTO item (id) VALUES ($1)", number)
            if number % 10 == 3:
                raise LookupError(number)
            return number

        return work

    answers = await asyncio.gather(*(database.write(unit(n)) for n in range(50)), return_exceptions=True)
    failed = [n for n, answer in enumerate(answers) if isinstance(answer, LookupError)]
    assert failed == [3, 13, 23, 33, 43]
    assert await ids(database) == [n for n in range(50) if n % 10 != 3]


async def test_a_duplicate_is_a_conflict_and_names_no_value(database: Database) -> None:
    """What a unique index refuses is `Duplicate`, and what was to be stored isn't told."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id, a) VALUES (77, 'private')")

    await database.write(unit)
    with pytest.raises(Duplicate) as caught:
        await database.write(unit)
    assert isinstance(caught.value, Conflict)
    assert "private" not in str(caught.value)
    assert "77" not in str(caught.value)


async def test_a_broken_reference_is_a_conflict(database: Database) -> None:
    """Foreign keys are enforced."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO part (id, item) VALUES (1, 404)")

    with pytest.raises(Conflict):
        await database.write(unit)


async def test_a_reference_checked_at_commit_fails_its_own_unit_only(database: Database) -> None:
    """A deferred constraint speaks up at COMMIT, which the others share."""

    async def table(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE late (item BIGINT NOT NULL REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED)")

    async def dangling(tx: Transaction) -> None:
        await tx.execute("INSERT INTO late (item) VALUES (404)")

    await database.write(table)
    answers = await asyncio.gather(
        database.write(insert(1)), database.write(dangling), database.write(insert(2)), return_exceptions=True
    )
    assert isinstance(answers[1], Conflict)
    assert await ids(database) == [1, 2]


async def test_a_statement_that_failed_ends_its_unit_even_when_swallowed(database: Database) -> None:
    """PostgreSQL refuses what follows a failure, so nobody may come to rely on the opposite."""

    async def swallows(tx: Transaction) -> str:
        await tx.execute("INSERT INTO item (id) VALUES (1)")
        try:
            await tx.execute("INSERT INTO item (id) VALUES (1)")
        except Duplicate:
            return "went on"
        return "no failure"

    async def goes_on(tx: Transaction) -> None:
        try:
            await swallows(tx)
        finally:
            await tx.execute("INSERT INTO item (id) VALUES (2)")

    with pytest.raises(Duplicate):
        await database.write(swallows)
    with pytest.raises(RuntimeError, match="went on"):
        await database.write(goes_on)
    assert await ids(database) == []


async def test_a_wrong_statement_is_our_own_mistake(database: Database) -> None:
    """No caller is told that it did something wrong."""

    async def unit(tx: Transaction) -> None:
        await tx.fetch("SELECT nothing FROM nowhere")

    with pytest.raises(RuntimeError) as caught:
        await database.write(unit)
    assert not isinstance(caught.value, Problem)


async def test_a_statement_is_one(database: Database) -> None:
    """A second one behind a semicolon could end the transaction that others share."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (1); COMMIT")

    with pytest.raises(RuntimeError):
        await database.write(unit)
    assert await ids(database) == []


async def test_units_commit_in_the_order_they_were_handed_over(database: Database) -> None:
    """Each sees the effects of those before it, and the answers come in that order."""
    order: list[int] = []

    async def write(number: int) -> None:
        async def unit(tx: Transaction) -> int:
            row = await tx.fetchrow("SELECT count(*) AS seen FROM item")
            await tx.execute("INSERT INTO item (id) VALUES ($1)", number)
            return int(row["seen"]) if row else -1

        assert await database.write(unit) == number
        order.append(number)

    await asyncio.gather(*(write(number) for number in range(600)))
    assert order == list(range(600))


async def test_a_read_sees_committed_rows_only(database: Database) -> None:
    """Never one of a unit that is still running or was undone."""

    async def fails(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (666)")
        raise LookupError

    async def fail() -> None:
        with pytest.raises(LookupError):
            await database.write(fails)

    async def count(tx: Transaction) -> int:
        row = await tx.fetchrow("SELECT count(*) AS found FROM item WHERE id = $1", 666)
        return int(row["found"]) if row else -1

    seen: list[int] = []

    async def look() -> None:
        seen.append(await database.read(count))

    await asyncio.gather(*(job() for _ in range(100) for job in (fail, look)))
    assert seen == [0] * 100


async def test_a_read_after_a_write_sees_it(database: Database) -> None:
    """Whoever was told that its unit is durable finds it."""
    for number in range(20):
        await database.write(insert(number))
        assert number in await ids(database)


async def test_a_read_changes_nothing(database: Database) -> None:
    """By `execute` or by a statement that returns rows: refused, and nothing is kept."""

    async def executes(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (1)")

    async def returns(tx: Transaction) -> None:
        await tx.fetch("INSERT INTO item (id) VALUES (1) RETURNING id")

    for unit in (executes, returns):
        with pytest.raises(RuntimeError):
            await database.read(unit)
    assert await ids(database) == []


async def test_of_many_that_swap_one_wins_each_time(database: Database) -> None:
    """Concurrent compare-and-swaps on one version: no update is lost."""

    async def current(tx: Transaction) -> int:
        row = await tx.fetchrow("SELECT n FROM item WHERE id = 1")
        return int(row["n"]) if row else -1

    async def raise_by_one() -> None:
        while True:
            seen = await database.read(current)

            async def swap(tx: Transaction, seen: int = seen) -> int:
                return await tx.execute("UPDATE item SET n = $1 WHERE id = 1 AND n = $2", seen + 1, seen)

            if await database.write(swap):
                return

    await database.write(insert(1))
    await asyncio.gather(*(raise_by_one() for _ in range(40)))
    assert await database.read(current) == 40


async def test_a_unit_must_await_nothing_else(database: Database) -> None:
    """It would hold everybody's commit back; it is refused, undone, and the store lives on."""

    async def sleeps(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (1)")
        await Elsewhere()

    async def nests(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (2)")
        await database.write(insert(3))

    for unit in (sleeps, nests):
        with pytest.raises(RuntimeError):
            await database.write(unit)
    assert await ids(database) == []


async def test_a_unit_that_leaves_strangely_breaks_nothing(database: Database) -> None:
    """StopIteration, SystemExit, cancelling oneself, ignoring the end, no coroutine at all: RuntimeError each time."""

    async def stops(tx: Transaction) -> None:
        raise StopIteration(1)

    async def exits(tx: Transaction) -> None:
        raise SystemExit(1)

    async def cancels(tx: Transaction) -> None:
        raise asyncio.CancelledError

    async def clings(tx: Transaction) -> None:
        while True:
            try:
                await Elsewhere()
            except GeneratorExit:
                await tx.execute("INSERT INTO item (id) VALUES (1)")

    def plain(tx: Transaction) -> int:
        return 1

    for unit in (stops, exits, cancels, clings, plain):
        with pytest.raises(RuntimeError):
            await database.write(unit)  # type: ignore[arg-type]
    assert await ids(database) == []


async def test_a_transaction_is_dead_after_its_unit(database: Database) -> None:
    """Whoever keeps it can't write into somebody else's."""
    kept: list[Transaction] = []

    async def keeps(tx: Transaction) -> None:
        kept.append(tx)

    async def uses(tx: Transaction) -> None:
        await kept[0].execute("INSERT INTO item (id) VALUES (1)")

    await database.write(keeps)
    with pytest.raises(RuntimeError):
        await database.write(uses)
    assert await ids(database) == []


async def test_cancelling_the_caller_leaves_the_store_whole(database: Database) -> None:
    """The unit is carried out or not, but wholly, and the next caller is served."""

    async def both(tx: Transaction) -> None:
        await tx.execute("INSERT INTO item (id) VALUES (1)")
        await tx.execute("INSERT INTO item (id) VALUES (2)")

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(database.write(both))
        group.create_task(_cancel(waiting))
    assert await ids(database) in ([], [1, 2])
    assert await database.write(insert(9)) == 1


async def _cancel(task: asyncio.Task[None]) -> None:
    await Elsewhere()
    task.cancel()


async def test_a_unit_run_twice_counts_once_when_it_was_undone_between(database: Database) -> None:
    """A driver may run a unit again from its beginning; nothing of the first run is left."""
    runs = 0

    async def fails_once(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        await tx.execute("INSERT INTO item (id) VALUES (1)")
        if runs == 1:
            raise LookupError
        return runs

    with pytest.raises(LookupError):
        await database.write(fails_once)
    assert await database.write(fails_once) == 2
    assert await ids(database) == [1]


async def test_closing_waits_for_what_was_handed_over(opener: Opener) -> None:
    """Everything that was accepted is durable and answered; what comes later is refused."""
    async with opener() as store:
        await store.write(create)
        waiting = asyncio.gather(*(store.write(insert(number)) for number in range(300)))
        await Elsewhere()
    assert await waiting == [1] * 300
    with pytest.raises(Unavailable):
        await store.write(insert(1000))
    async with opener() as again:
        assert await ids(again) == list(range(300))


async def test_a_second_opener_is_refused_with_a_sentence_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    """Twice: the refusal itself must not loosen the lock."""
    path = tmp_path / "store.db"
    async with open_database(f"sqlite:{path}") as first:
        for _ in range(2):
            with pytest.raises(StoreLocked, match=str(path)):
                async with open_database(f"sqlite:{path}"):
                    pass
        await first.write(create)


@pytest.mark.parametrize("url", ["", "sqlite", "sqlite:relative.db", "mysql:/x", "/tmp/x.db"])
async def test_an_address_that_names_no_store_is_refused(url: str) -> None:
    """With the form that was expected."""
    with pytest.raises(Malformed, match="expected `sqlite:/absolute/path` or `postgresql://"):
        async with open_database(url):
            pass
