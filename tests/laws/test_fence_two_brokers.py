"""Law 1 over PostgreSQL: two brokers, two connections, and nothing is given to a task whose end was committed (T6).

READ COMMITTED is not SQLite's single writer: a unit of the other broker may commit between two statements of ours. Each
play is repeated, and where an order can be forced it is, by a lock that a unit waits for in its middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from broker.errors import Fenced
from broker.model.ids import new_task
from broker.model.task import EndReason, Task
from broker.store import tasks
from ca.errors import Problem
from ca.runtime.database import Transaction, Unit, open_database
from fakes.clock import ManualClock
from fakes.stores import postgres_address
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living
from servers.postgres import postgres

TIMES = 12
GATE = 77


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """Of the store both stand over."""
    return await postgres_address(tmp_path)


@pytest.fixture
async def two(tmp_path: Path, address: str) -> AsyncIterator[tuple[House, House]]:
    """Two brokers, one store, one target."""
    clock = ManualClock()
    engine = FakeEngine(FakeTarget(clock))
    async with (
        living(tmp_path, clock=clock, engine=engine, store=open_database(address)) as one,
        living(tmp_path, clock=clock, engine=engine, store=open_database(address)) as other,
    ):
        yield one, other


async def _order(house: House) -> list[tuple[str, str | None]]:
    return [(str(event.kind), event.task) for event in await house.events()]


async def test_a_lease_is_issued_before_its_task_ends_or_never(two: tuple[House, House]) -> None:
    """One broker gives while the other ends; in commit order nothing is issued behind an end."""
    one, other = two
    for _ in range(TIMES):
        task = await one.open()
        await asyncio.gather(one.obtain(task), one.obtain(task), other.end(task), return_exceptions=True)
        order = await _order(one)
        ended = order.index(("task.ended", task.id))
        assert ("lease.issued", task.id) not in order[ended:]
    for _ in range(8):
        for house in two:
            await house.reap()
        await one.clock.advance(40)
    assert all(lease.is_closed for lease in await one.leases())
    assert not one.engine.target.principals


async def test_events_are_dense_whoever_commits(two: tuple[House, House]) -> None:
    """Each number once, none left out (T7)."""
    one, other = two
    opened = [await one.open() for _ in range(TIMES)]
    await asyncio.gather(*(house.end(task) for task in opened for house in (one, other)), return_exceptions=True)
    rows = await one.world.database.read(lambda tx: tx.fetch("SELECT n FROM events ORDER BY n"))
    assert [row["n"] for row in rows] == list(range(1, len(rows) + 1))
    assert [kind for kind, _ in await _order(one)].count("task.ended") == TIMES


def _child(parent: Task, house: House, *, gate: bool = False) -> tuple[Task, Unit[None]]:
    name = new_task(house.clock.now())
    child = replace(parent, id=name, root=parent.root, parent=parent.id, heartbeat=timedelta(seconds=30))

    async def unit(tx: Transaction) -> None:
        await tasks.touch(tx, parent.id, parent.version)
        if gate:
            await tx.fetch("SELECT pg_advisory_xact_lock($1)", GATE)
        await tasks.insert(tx, child)

    return child, unit


async def _states(house: House, ended: Sequence[Task]) -> list[bool]:
    return [(await house.task(one.id)).is_live for one in ended]


async def test_no_child_is_left_alive_in_a_tree_that_ended(two: tuple[House, House]) -> None:
    """Grandchildren are opened at one broker while the other ends the root."""
    one, other = two
    for _ in range(TIMES):
        root = await one.open()
        middle = await one.open(root)
        children = [_child(middle, one) for _ in range(4)]
        answers = await asyncio.gather(
            *(one.world.database.write(unit) for _, unit in children),
            other.end(root),
            return_exceptions=True,
        )
        opened = [child for (child, _), answer in zip(children, answers[:-1], strict=True) if answer is None]
        assert all(isinstance(answer, Fenced) for answer in answers[:-1] if answer is not None), answers
        assert not any(await _states(one, [root, middle, *opened]))


@asynccontextmanager
async def _gate(address: str) -> AsyncIterator[asyncpg.Connection]:
    """Whoever asks for the gate waits until the block is left."""
    async with postgres() as server:
        connection = await server.connect(address.rpartition("?")[0].rpartition("/")[2])
        await connection.execute(f"SELECT pg_advisory_lock({GATE})")
        try:
            yield connection
        finally:
            await connection.close()


async def _until_somebody_waits(connection: asyncpg.Connection, kind: str, house: House) -> None:
    query = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype {kind}"
    async with asyncio.timeout(30):
        while not await connection.fetchval(query):
            await house.clock.settle()


async def test_an_end_waits_for_a_child_under_way_and_then_ends_it(two: tuple[House, House], address: str) -> None:
    """The child's unit has touched its parent and not yet committed: the end that comes now must not miss it."""
    one, other = two
    root = await one.open()
    child, unit = _child(root, one, gate=True)
    async with asyncio.TaskGroup() as group, _gate(address) as connection:
        opening = group.create_task(one.world.database.write(unit))
        await _until_somebody_waits(connection, "= 'advisory'", one)
        ending = group.create_task(other.end(root))
        await _until_somebody_waits(connection, "<> 'advisory'", one)
        assert not ending.done()
    assert opening.result() is None
    assert {task.id for task in ending.result()} == {root.id, child.id}
    assert not any(await _states(one, [root, child]))


async def test_two_brokers_that_end_one_task_end_it_once(two: tuple[House, House]) -> None:
    """One of them did; the other finds nothing to do."""
    one, other = two
    for _ in range(TIMES):
        task = await one.open()
        answers = await asyncio.gather(one.end(task), other.end(task, EndReason.OPERATOR), return_exceptions=True)
        told = [len(answer) for answer in answers if not isinstance(answer, BaseException)]
        assert sum(told) == 1, answers
        assert all(isinstance(answer, Problem) for answer in answers if isinstance(answer, BaseException))
