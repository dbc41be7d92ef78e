"""T12 over PostgreSQL: another machine keeps no reserve, so endings go on outside and are told later.

The server refuses with the error a full disk gives (53100), from a trigger: everything between it and us is real.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.loops.claims import Claims
from broker.loops.reaper import Reaper
from broker.model.lease import LeaseState
from broker.model.task import TaskState
from ca.errors import Problem
from ca.runtime.database import StoreFull, open_database
from fakes.clock import ManualClock
from fakes.stores import as_superuser, postgres_address
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living

TABLES = ("tasks", "leases", "receipts", "events", "brokers")
FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"""


@asynccontextmanager
async def full_disk(address: str) -> AsyncIterator[None]:
    """While the block runs no row is written."""
    when = "BEFORE INSERT OR UPDATE ON"
    triggers = [f"CREATE TRIGGER full_disk {when} {table} EXECUTE FUNCTION full_disk()" for table in TABLES]
    await as_superuser(address, FULL, *triggers)
    try:
        yield
    finally:
        await as_superuser(address, "DROP FUNCTION full_disk CASCADE")


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[House, House, str]]:
    """Two brokers over one server."""
    clock, address = ManualClock(), await postgres_address(folder)
    target = FakeTarget(clock)
    async with (
        living(folder, clock=clock, engine=FakeEngine(target), store=open_database(address)) as one,
        living(folder, clock=clock, engine=FakeEngine(target), store=open_database(address)) as other,
    ):
        for house in (one, other):
            house.reaper = Reaper(house.world, Claims(exclusive=False))
        yield one, other, address


async def test_nothing_is_given_and_an_end_ends_access_at_once(tmp_path: Path) -> None:
    """It is recorded when there is room, once; at no broker anything is given meanwhile."""
    async with two(tmp_path) as (one, other, address):
        task = await one.open()
        handed = await one.held(task)
        session = await one.engine.target.login(handed.issued)
        async with full_disk(address):
            for house in (one, other):
                with pytest.raises(StoreFull):
                    await house.obtain(task)
            assert {ended.id for ended in await one.end(task)} == {task.id}
            assert not await session.answers()
            assert await one.engine.target.login(handed.issued) is None
            await one.clock.advance(100)  # its renewal would be due
            for house in (one, other):
                with pytest.raises(Problem):  # its tick says so, and is tried again
                    await house.reaper.claims.tick(house.world)
                await house.reap()
            assert await one.engine.target.login(handed.issued) is None
            assert (await one.task(task.id)).state is TaskState.ACTIVE
        for _ in range(3):
            for house in (one, other):
                await house.reaper.claims.tick(house.world)
                await house.reap()
            await one.clock.advance(5)
        assert (await other.task(task.id)).state is TaskState.DONE
        assert (await other.lease(handed.lease.id)).state is LeaseState.REVOKED
        assert not one.engine.target.principals
        assert [str(event.kind) for event in await one.events()].count("task.ended") == 1


async def test_a_disk_that_fills_while_the_target_is_at_work_gives_nothing(tmp_path: Path) -> None:
    """What was made can't be recorded as given, and is ended; the intent is settled when there is room."""
    async with two(tmp_path) as (one, other, address):
        task, made = await one.open(), one.engine.create
        filling = full_disk(address)

        async def create(*arguments: object) -> object:
            issued = await made(*arguments)
            await filling.__aenter__()
            return issued

        one.engine.create = create
        try:
            with pytest.raises(StoreFull):
                await one.obtain(task)
            assert not any(principal.enabled for principal in one.engine.target.principals.values())
        finally:
            await filling.__aexit__(None, None, None)
        for _ in range(6):
            await other.clock.advance(10)
            await other.reap()
        assert all(lease.is_closed for lease in await other.leases())
        assert not one.engine.target.principals
