"""T12: with a full disk nothing is given any more, and everything that must end ends."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.errors import Fenced
from broker.model.lease import LeaseState
from broker.model.task import TaskState
from ca.errors import Problem
from ca.runtime.database import Database, StoreFull, Unit
from fakes.world import living


@dataclass
class Filling:
    """A real store on a disk that a test fills: first for grants, then so that not even the reserve is left."""

    inner: Database
    full: bool = False
    reserve: bool = True

    async def read(self, unit: Unit[Any]) -> Any:
        return await self.inner.read(unit)

    async def write(self, unit: Unit[Any], *, ending: bool = False) -> Any:
        if self.full and not (ending and self.reserve):
            raise StoreFull("the store is full")
        return await self.inner.write(unit, ending=ending)


async def test_grants_stop_and_endings_go_on_from_the_reserve(tmp_path: Path) -> None:
    """Every step of an ending is marked as one, so the reserve carries it to its end."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database
        task = await house.open()
        handed = await house.held(task)
        store.full = True
        with pytest.raises(StoreFull):
            await house.obtain(task)
        await house.end(task)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED
        assert not house.engine.target.principals


async def test_a_grant_that_can_not_be_recorded_makes_nothing(tmp_path: Path) -> None:
    """The intent comes first."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database
        task = await house.open()
        store.full = True
        with pytest.raises(StoreFull):
            await house.obtain(task)
        assert "create" not in {verb for verb, _ in house.engine.calls}


async def test_a_disk_that_fills_between_intent_and_activation_gives_nothing(tmp_path: Path) -> None:
    """What was made and can't be recorded as given is taken back."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database
        task = await house.open()
        made = house.engine.create

        async def create(*arguments: Any) -> Any:
            issued = await made(*arguments)
            store.full, store.reserve = True, False
            return issued

        house.engine.create = create
        with pytest.raises(StoreFull):
            await house.obtain(task)
        assert not any(principal.enabled for principal in house.engine.target.principals.values())


async def test_an_end_that_can_not_even_be_recorded_ends_access_all_the_same(tmp_path: Path) -> None:
    """Sessions are cut and logins refused now; the record follows when there is room, and nothing was given between."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database
        task = await house.open()
        child = await house.open(task)
        handed, below = await house.held(task), await house.held(child)
        session = await house.engine.target.login(handed.issued)
        store.full, store.reserve = True, False
        assert {ended.id for ended in await house.end(task)} == {task.id, child.id}
        assert not await session.answers()
        assert await house.engine.target.login(handed.issued) is None
        assert await house.engine.target.login(below.issued) is None
        store.full = False
        for refused in (task, child):
            with pytest.raises(Fenced):
                await house.obtain(refused)
        await house.reap()
        assert (await house.task(task.id)).state is TaskState.DONE
        assert (await house.task(child.id)).state is TaskState.CANCELLED
        assert {lease.state for lease in await house.leases()} == {LeaseState.REVOKED}
        assert not house.world.unrecorded


async def test_a_lease_that_must_end_is_ended_before_it_is_recorded(tmp_path: Path) -> None:
    """The reaper does not wait for room either."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database
        handed = await house.obtain(await house.open())
        store.full, store.reserve = True, False
        await house.clock.advance(31)  # nobody acknowledged it
        with contextlib.suppress(Problem):
            await house.reap()
        assert await house.engine.target.login(handed.issued) is None
