"""The leases of ended tasks fall due: after the end, from the reserve, and never lost when nothing can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.lifecycle.call_in import call_in
from broker.model.event import EventKind
from broker.model.lease import LeaseState
from fakes.filling import Filling, only_endings
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import living

pytestmark = pytest.mark.usefixtures("on_every_store")


async def test_what_an_ended_task_held_is_due_and_what_lives_is_not(tmp_path: Path) -> None:
    """Once; a task that held nothing is told over in the same breath, and one that does is not."""
    async with living(tmp_path, wrap=Filling) as house:
        holding, empty, alive = [await house.open() for _ in range(3)]
        ending, staying = [(await house.held(task)).lease for task in (holding, alive)]
        await house.end(holding)
        await house.end(empty)
        only_endings(house)
        now, before = house.clock.now(), await house.lease(staying.id)
        assert await call_in(house.world, now) == ()
        due = await house.lease(ending.id)
        assert (due.state, due.due_at <= now) == (LeaseState.ACTIVE, True)
        assert await house.lease(staying.id) == before
        closed = [event.task for event in await house.events() if event.kind is EventKind.TASK_CLOSED]
        assert closed == [empty.id]
        assert await call_in(house.world, now) == ()
        assert await house.lease(ending.id) == due
        assert len([event for event in await house.events() if event.kind is EventKind.TASK_CLOSED]) == 1


async def test_what_can_not_be_written_is_answered_to_be_ended_without(tmp_path: Path) -> None:
    """Whoever asked ends their access outside; they are called in when there is room."""
    async with living(tmp_path, wrap=Filling) as house:
        task = await house.open()
        held = (await house.held(task)).lease
        await house.end(task)
        store = house.world.database.inner  # type: ignore[attr-defined]
        store.full, store.reserve = True, False
        left = await call_in(house.world, house.clock.now())
        assert [one.task for one in left] == [task.id]
        store.reserve = True
        assert await call_in(house.world, house.clock.now()) == ()
        assert (await house.lease(held.id)).due_at <= house.clock.now()
