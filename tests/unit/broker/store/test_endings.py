"""What is due is found by an index, in an order that is fair, whatever else there is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.lifecycle.call_in import call_in
from broker.model.ids import LeaseId, TaskId, new_lease
from broker.store import endings, leases, receipts, tasks
from broker.store.endings import Called, Turn
from ca.errors import Stale
from ca.runtime.database import Database, Transaction
from fakes.stores import CHOSEN, on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")
DB = "orders-db"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A broker."""
    async with living(tmp_path) as found:
        yield found


class Explained:
    """A transaction that remembers how each statement would be carried out."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.plans: list[tuple[str, str]] = []

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        await self._note(sql, args)
        return await self.tx.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        await self._note(sql, args)
        return await self.tx.fetchrow(sql, *args)

    async def execute(self, sql: str, *args: Any) -> int:
        await self._note(sql, args)
        return await self.tx.execute(sql, *args)

    async def _note(self, sql: str, args: Any) -> None:
        if CHOSEN[-1] == "sqlite":
            rows = await self.tx.fetch(f"EXPLAIN QUERY PLAN {sql}", *args)
            plan = "\n".join(row["detail"] for row in rows)
        else:
            rows = await self.tx.fetch(f"EXPLAIN {sql}", *args)
            plan = "\n".join(row["QUERY PLAN"] for row in rows)
        self.plans.append((sql, plan))


async def explain(database: Database, unit: Any) -> list[tuple[str, str]]:
    """The plans of every statement of `unit`; PostgreSQL is told that a scan of a whole table is dear."""

    async def explained(tx: Transaction) -> list[tuple[str, str]]:
        if CHOSEN[-1] != "sqlite":
            await tx.execute("SET LOCAL enable_seqscan = off")
        seen = Explained(tx)
        await unit(seen)
        return seen.plans

    return await database.write(explained)


LEASE, TASK = LeaseId("l"), TaskId("t")
HOT: dict[str, Any] = {
    "due": lambda tx, now: endings.due(tx, DB, now, Turn(broker="b", others_until=now), 1),
    "active_due": lambda tx, now: endings.active_due(tx, DB, now, Turn(broker="b", others_until=now), 10),
    "stalled": lambda tx, now: endings.stalled(tx, DB, now, Turn(broker="b", others_until=now), 10),
    "to_call": lambda tx, now: endings.to_call(tx, 10),
    "half_made": lambda tx, now: endings.half_made(tx, "b", 10),
    "targets": lambda tx, now: endings.targets(tx),
    "active_at": lambda tx, now: endings.active_at(tx, DB, (now, LEASE), 10),
    "by_names": lambda tx, now: leases.by_names(tx, ["sj_a"]),
    "by_name": lambda tx, now: leases.by_name(tx, "sj_a"),
    "a page": lambda tx, now: leases.page(tx, after=None, limit=10),
    "a page of open ones": lambda tx, now: leases.page(tx, after=None, limit=10, open_only=True),
    "a page of a task": lambda tx, now: leases.page(tx, after=None, limit=10, task=TASK),
    "a page of live tasks": lambda tx, now: tasks.page(tx, after=None, limit=10, live=True),
    "tasks due": lambda tx, now: tasks.due(tx, now, 10),
    "pardon": tasks.pardon,
    "say_drained": lambda tx, now: tasks.say_drained(tx, TASK, now),
    "call_in": lambda tx, now: endings.call_in(tx, Called(TASK, now), 10),
    "ended_instances": tasks.ended_instances,
    "without_identity": lambda tx, now: tasks.without_identity(tx, 10),
    "receipts' ends": lambda tx, now: receipts.newest_heads(tx, 10),
    "every receipts' end": lambda tx, now: receipts.heads(tx),
}


@pytest.mark.parametrize("query", HOT)
async def test_an_index_is_used(house: House, query: str) -> None:
    """No look at every row, and nothing to be sorted that an index has in order."""
    now = house.clock.now()
    plans = await explain(house.world.database, lambda tx: HOT[query](tx, now))
    assert plans
    for sql, plan in plans:
        assert not FORBIDDEN.search(plan), (sql, plan)
        assert "LIMIT" not in sql or "leases" not in sql or "TEMP B-TREE" not in plan, (sql, plan)


SMALL = "leases_half_made|tasks_to_call|tasks_live|leases_open_by_id"
"""Indexes of a few rows, or read in their order up to a limit."""
FORBIDDEN = re.compile(rf"SCAN (leases|tasks|receipts|l|t|r)\b(?! USING (COVERING )?INDEX ({SMALL})\b)|Seq Scan on")


async def test_a_task_with_many_leases_waits_for_its_second_until_all_had_their_first(house: House) -> None:
    """Places in the line of a target, for each task from one; whoever ended first is no longer first at its second."""
    hog, others = await house.open(), [await house.open() for _ in range(3)]
    for _ in range(6):
        await house.held(hog)
    for task in others:
        await house.held(task)
    for task in (hog, *others):
        await house.end(task)
        await house.clock.advance(1)
    await call_in(house.world, house.clock.now())
    turn = Turn(broker=house.world.broker, others_until=house.clock.now())
    line = await house.world.database.read(lambda tx: endings.due(tx, DB, house.clock.now(), turn, 4))
    assert {lease.task for lease in line} == {hog.id, *(task.id for task in others)}


async def test_what_is_to_be_renewed_has_a_share_of_every_batch(house: House) -> None:
    """A backlog of endings lets nobody's lease in use run out."""
    kept, ended = await house.open(), await house.open()
    renewed = await house.held(kept)
    for _ in range(12):
        await house.held(ended)
    await house.clock.advance(61)
    await house.end(ended)
    await call_in(house.world, house.clock.now())
    turn = Turn(broker=house.world.broker, others_until=house.clock.now())
    line = await house.world.database.read(lambda tx: endings.due(tx, DB, house.clock.now(), turn, 8))
    assert renewed.lease.id in {lease.id for lease in line}
    assert len(line) == 8


async def test_calling_in_goes_on_where_it_stopped(house: House) -> None:
    """In batches; none is called in twice, each is overdue from the end of its task on, and none of a live task is."""
    task, living_on = await house.open(), await house.open()
    for _ in range(5):
        await house.held(task)
    await house.held(living_on)
    await house.end(task)
    ended_at = house.clock.now()
    called = Called(task.id, ended_at)
    database = house.world.database
    counts = [await database.write(lambda tx, at=at: endings.call_in(tx, called, 2, at)) for at in (0, 2, 4)]  # type: ignore[misc]
    assert counts == [2, 2, 1]
    found = await house.leases()
    assert sorted(lease.due_at for lease in found if lease.task == task.id) == [
        EPOCH + timedelta(microseconds=place) for place in (1, 2, 3, 4, 5)
    ]
    assert {lease.end_due_at for lease in found} == {ended_at, None}
    assert [lease.is_overdue(ended_at + timedelta(seconds=31)) for lease in found].count(True) == 5


async def test_a_lease_that_moved_while_its_task_ended_is_looked_at_all_the_same(house: House) -> None:
    """Whoever read it before it was called in can't put it off any more."""
    handed = await house.held(task := await house.open())
    before = await house.lease(handed.lease.id)
    await house.end(task)
    await call_in(house.world, house.clock.now())
    later = house.clock.now() + timedelta(hours=1)
    with pytest.raises(Stale):
        await house.world.database.write(lambda tx: leases.keep(tx, before, due_at=later))


async def test_every_target_at_which_something_is_left_is_found(house: House) -> None:
    """From one name to the next, however many leases each has."""
    assert not await house.world.database.read(endings.targets)
    handed = await house.held(await house.open())
    for name in ("b", "a"):
        twin = replace(
            handed.lease,
            id=new_lease(house.clock.now()),
            handle=replace(handed.lease.handle, target=name, name=f"sj_{name}"),
        )
        await house.world.database.write(lambda tx, twin=twin: leases.insert(tx, twin))  # type: ignore[misc]
    assert await house.world.database.read(endings.targets) == ["a", "b", DB]
