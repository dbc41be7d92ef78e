"""What PostgreSQL adds to the contract: broken wires, other processes, servers that are not to be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from ca.errors import Problem, Unavailable
from ca.runtime.database import Database, StoreFull, Transaction, Unit, migrate, open_database
from ca.runtime.postgres import open_postgres
from ca.runtime.postgres_group import Undecided
from fakes.clock import ManualClock
from fakes.stores import as_superuser, create, database_of, ids, insert, postgres_address, tapped_store, through
from fakes.wire_tap import tapped
from servers.postgres import Server, postgres


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """Of a store of this test's own."""
    return await postgres_address(tmp_path)


def _counting(number: int, runs: list[int]) -> Unit[int]:
    async def unit(tx: Transaction) -> int:
        runs.append(number)
        return await tx.execute("INSERT INTO item (id) VALUES ($1)", number)

    return unit


async def test_a_commit_that_was_done_but_not_answered_is_answered_once(address: str) -> None:
    """The unit is not run again: PostgreSQL is asked what became of it."""
    runs: list[int] = []
    async with tapped_store(address) as (store, tap):
        tap.cut = (b"COMMIT", True)
        assert await store.write(_counting(1, runs)) == 1
        assert await ids(store) == [1]
    assert runs == [1]


async def test_a_commit_that_never_arrived_is_undone_and_its_units_run_again(address: str) -> None:
    """All of the group, in their order, and each counts once."""
    runs: list[int] = []
    async with tapped_store(address) as (store, tap):
        tap.cut = (b"COMMIT", False)
        answers = await asyncio.gather(*(store.write(_counting(number, runs)) for number in range(5)))
        assert answers == [1] * 5
        assert await ids(store) == [0, 1, 2, 3, 4]
    assert sorted(runs)[:2] == [0, 0]


async def test_a_commit_nobody_can_be_asked_about_is_undecided_and_never_run_again(address: str) -> None:
    """The store goes away in the middle of it and stays away; here it was kept."""
    runs: list[int] = []
    clock = ManualClock()
    async with (
        postgres() as server,
        tapped(server.host, server.port) as tap,
        open_postgres(through(address, server.port, tap), clock=clock) as store,
        asyncio.timeout(60),
    ):
        await store.write(create)
        tap.cut, tap.down = (b"COMMIT", True), True
        waiting = asyncio.gather(store.write(_counting(1, runs)), return_exceptions=True)
        while not waiting.done():
            await clock.advance(1)
        (answer,) = await waiting
        assert isinstance(answer, Undecided)
        assert answer.retryable
        tap.down = False
        assert await ids(store) == [1]
    assert runs == [1]


@pytest.mark.parametrize("heard", [True, False])
async def test_a_wire_that_breaks_within_a_unit_leaves_nothing_and_the_unit_is_run_again(
    address: str,
    heard: bool,  # noqa: FBT001 - the fact itself
) -> None:
    """What was not committed can't be durable."""
    runs: list[int] = []
    async with tapped_store(address) as (store, tap):
        tap.cut = (b"INSERT INTO item", heard)
        assert await store.write(_counting(1, runs)) == 1
        assert await ids(store) == [1]
    assert runs == [1, 1]


async def test_a_unit_that_breaks_every_connection_fails_alone(address: str) -> None:
    """Those that shared its commits are carried out."""
    async with tapped_store(address) as (store, tap):
        tap.cut, tap.always = (b"poison", False), True

        async def poison(tx: Transaction) -> None:
            await tx.execute("INSERT INTO item (id, a) VALUES (5, $1)", "poison")

        units = [insert(1), insert(2), poison, insert(3)]
        answers = await asyncio.gather(*(store.write(unit) for unit in units), return_exceptions=True)
        assert isinstance(answers.pop(2), Unavailable)
        assert answers == [1, 1, 1]
        assert await ids(store) == [1, 2, 3]


async def test_a_reader_takes_another_connection(address: str) -> None:
    """As a writer does."""
    async with tapped_store(address) as (store, tap):
        await store.write(insert(1))
        assert await ids(store) == [1]
        tap.cut_all()
        assert await ids(store) == [1]


async def test_a_store_that_is_away_says_so_and_works_when_it_is_back(address: str) -> None:
    """Nothing hangs, nothing is lost."""
    async with tapped_store(address) as (store, tap):
        tap.down = True
        tap.cut_all()
        with pytest.raises(Unavailable):
            await store.write(insert(1))
        with pytest.raises(Unavailable):
            await ids(store)
        tap.down = False
        await store.write(insert(2))
        assert await ids(store) == [2]


async def test_what_a_server_says_never_brings_a_value_along(address: str) -> None:
    """PostgreSQL and asyncpg both repeat values in their messages; neither is kept, in no cause and no context."""
    statements = (
        "INSERT INTO item (id, a) VALUES (1, $1)",
        "SELECT CAST($1 AS BIGINT) AS n",
        "INSERT INTO item (id) VALUES ($1)",
        "INSERT INTO part (id, item) VALUES (1, 404), (2, length($1))",
    )
    async with open_database(address) as store:
        await store.write(create)
        await store.write(insert(1))
        for statement in statements:
            with pytest.raises((Problem, RuntimeError)) as caught:
                await store.write(lambda tx, sql=statement: tx.fetch(sql, "hunter2"))  # type: ignore[misc]
            assert "hunter2" not in _everything(caught.value)


def _everything(error: BaseException | None) -> str:
    return "" if error is None else f"{error!r} {error} {_everything(error.__cause__)} {_everything(error.__context__)}"


async def test_a_full_disk_refuses_endings_too(address: str) -> None:
    """There is no reserve on another machine."""
    async with open_database(address) as store:
        await store.write(create)
        await as_superuser(
            address,
            "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$",
            "CREATE TRIGGER t BEFORE INSERT ON item EXECUTE FUNCTION full()",
        )
        with pytest.raises(StoreFull):
            await store.write(insert(1), ending=True)


def _swap(number: int, seen: int) -> Unit[int]:
    async def unit(tx: Transaction) -> int:
        return await tx.execute("UPDATE item SET n = $1 WHERE id = $2 AND n = $3", seen + 1, number, seen)

    return unit


def _of(number: int) -> Unit[int]:
    async def unit(tx: Transaction) -> int:
        row = await tx.fetchrow("SELECT n FROM item WHERE id = $1", number)
        return int(row["n"]) if row else -1

    return unit


async def _count_up(store: Database, number: int, times: int) -> None:
    done = 0
    while done < times:
        done += await store.write(_swap(number, await store.read(_of(number))))


async def test_two_processes_lose_no_update(address: str) -> None:
    """A group that waits for the other's lock gives way; nobody waits for ever, every swap counts once."""
    async with open_database(address) as one, open_database(address) as other:
        await one.write(create)
        for number in range(3):
            await one.write(insert(number))
        await asyncio.gather(*(_count_up(store, n, 8) for store in (one, other) for n in (0, 1, 2) for _ in range(2)))
        assert [await one.read(_of(number)) for number in range(3)] == [32, 32, 32]


def _both(first: int, second: int) -> Unit[None]:
    async def unit(tx: Transaction) -> None:
        for number in (first, second):
            await tx.execute("UPDATE item SET n = n + 1 WHERE id = $1", number)

    return unit


async def test_two_processes_that_lock_crosswise_both_get_through(address: str) -> None:
    """PostgreSQL ends the deadlock; whoever it hit is run again from its beginning."""
    async with open_database(address) as one, open_database(address) as other:
        await one.write(create)
        await asyncio.gather(one.write(insert(1)), one.write(insert(2)))
        for _ in range(5):
            await asyncio.gather(one.write(_both(1, 2)), other.write(_both(2, 1)))
        assert [await one.read(_of(number)) for number in (1, 2)] == [10, 10]


async def test_a_unit_held_up_by_a_stranger_holds_up_nobody_behind_it_for_long(address: str) -> None:
    """Another session keeps a row; the group commits without the unit that wants it, which is told in the end."""
    async with open_database(address) as store:
        await store.write(create)
        await store.write(insert(1))
        async with postgres() as server:
            stranger = await server.connect(database_of(address))
            held = stranger.transaction()
            await held.start()
            await stranger.execute("UPDATE item SET n = 5 WHERE id = 1")
            async with asyncio.TaskGroup() as group:
                first, swap = group.create_task(store.write(insert(2))), group.create_task(store.write(_swap(1, 0)))
                await first
                assert 2 in await ids(store)
                assert not swap.done()
                await held.commit()
            await stranger.close()
        assert swap.result() == 0


async def test_servers_that_start_together_migrate_once(address: str, tmp_path: Path) -> None:
    """Each file is applied by one of them, and all come up."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "0001_a.sql").write_text("CREATE TABLE one (a BIGINT); INSERT INTO one (a) VALUES (1)")
    (folder / "0002_b.sql").write_text("CREATE TABLE two (a BIGINT); INSERT INTO one (a) VALUES (2)")

    async def start() -> Sequence[int]:
        async with open_database(address) as store:
            await migrate(store, "p", folder)
            return [row["a"] for row in await store.read(lambda tx: tx.fetch("SELECT a FROM one ORDER BY a"))]

    assert await asyncio.gather(*(start() for _ in range(4))) == [[1, 2]] * 4


async def test_a_power_cut_of_the_server_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """SIGKILL of the whole server while units are handed over: what was answered is there afterwards, once."""
    async with postgres(fresh=True) as server, open_database(await server.store("cut")) as store:
        await store.write(create)
        told: set[int] = set()

        async def write(number: int) -> None:
            try:
                await store.write(insert(number))
            except Unavailable:
                return
            told.add(number)
            if len(told) == 200:
                _power_cut(server)

        await asyncio.gather(*(write(number) for number in range(1000)))
        assert len(told) < 1000
        server.start()
        found = await _when_back(store)
        assert told <= set(found)


def _power_cut(server: Server) -> None:
    import signal

    server.stop(signal.SIGKILL)


async def _when_back(store: Database) -> list[int]:
    try:
        return await ids(store)
    except (Unavailable, asyncpg.PostgresError):
        return await ids(store)
