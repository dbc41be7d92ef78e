"""Who reads events by another connection than they are written by sees no gap, whatever commits or fails when (T7).

Over PostgreSQL the orders that matter are forced: a unit that has its number waits in its middle. Over SQLite there are
none to force: for as long as a broker lives nobody has another connection (T6).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import pytest

from broker.events.feed import Feed
from broker.model.event import Event, EventKind
from broker.model.task import Task
from broker.store import events
from ca.errors import Stale
from ca.runtime.database import Transaction, Unit, open_database
from fakes.clock import ManualClock
from fakes.stores import database_of, postgres_address
from fakes.world import House, living
from servers.postgres import postgres

GATE = 78


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[House, House, Feed, asyncpg.Connection]]:
    """Two brokers, the feed of the second, and whoever holds the gate."""
    clock, address = ManualClock(), await postgres_address(folder)
    async with (
        postgres() as server,
        living(folder, clock=clock, store=open_database(address)) as one,
        living(folder, clock=clock, store=open_database(address)) as other,
    ):
        feed = Feed(other.world.database)
        await feed.tick(clock.now())
        gate = await server.connect(database_of(address))
        try:
            yield one, other, feed, gate
        finally:
            await gate.close()


def numbered(task: Task, house: House, *, fails: bool) -> Unit[None]:
    """Takes a number and waits with it, to commit or to fail."""

    async def unit(tx: Transaction) -> None:
        event = Event(kind=EventKind.TASK_CHANGED, at=house.clock.now(), task=task.id, root=task.root)
        await events.append(tx, event)
        await tx.fetch("SELECT pg_advisory_xact_lock($1)", GATE)
        if fails:
            raise Stale("on purpose")

    return unit


async def _waits(gate: asyncpg.Connection, kind: str, house: House) -> None:
    async with asyncio.timeout(30):
        while not await gate.fetchval(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype {kind}"):
            await house.clock.settle()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_later_number_is_not_seen_before_an_earlier_one(tmp_path: Path, fails: bool) -> None:  # noqa: FBT001
    """The second waits for the first, and whoever reads meanwhile reads neither; one that fails leaves no gap."""
    async with two(tmp_path) as (one, other, feed, gate):
        first, second = await one.open(), await one.open()
        begin = feed.epoch.n
        await gate.execute(f"SELECT pg_advisory_lock({GATE})")
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(_outcome(one, numbered(first, one, fails=fails)))
            await _waits(gate, "= 'advisory'", one)
            ending = group.create_task(other.end(second))
            await _waits(gate, "<> 'advisory'", one)
            await feed.tick(one.clock.now())
            assert (feed.epoch.n, writing.done(), ending.done()) == (begin, False, False)
            await gate.execute(f"SELECT pg_advisory_unlock({GATE})")
        assert isinstance(writing.result(), Stale if fails else type(None))
        await feed.tick(one.clock.now())
        told = [event.task for event in await one.events()][begin:]
        assert told == ([second.id] if fails else [first.id, second.id])
        assert feed.epoch.n == begin + len(told)


async def _outcome(house: House, unit: Unit[None]) -> Stale | None:
    try:
        await house.world.database.write(unit)
    except Stale as stale:
        return stale
    return None


@pytest.mark.parametrize("statement", ["SELECT n FROM epoch", "UPDATE tasks SET ended_at = 1"])
async def test_there_is_no_second_connection_to_sqlite(tmp_path: Path, statement: str) -> None:
    """Neither to read nor to write, not even between two of our transactions: what a fence or a cursor saw stays so."""
    async with living(tmp_path) as house:
        task = await house.open()
        with (
            closing(sqlite3.connect(tmp_path / "broker.db", timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute(statement)
        assert (await house.task(task.id)).is_live
