"""Tasks whose time is up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.model.ids import InstanceId
from broker.model.observed import Observation
from broker.model.task import EndReason
from broker.store import tasks
from fakes.clock import ManualClock
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget
from fakes.world import living

pytestmark = pytest.mark.usefixtures("on_every_store")

WHO = InstanceId("0" * 32)


async def test_a_deadline_ends_a_task_and_what_is_below_it(tmp_path: Path) -> None:
    """Not a tick before, and with the reason."""
    async with living(tmp_path) as house:
        root = await house.open(deadline=house.clock.now() + timedelta(seconds=60))
        child = await house.open(root)
        await house.clock.advance(59)
        assert await house.deadlines.tick(house.clock.now()) == 0
        await house.clock.advance(1)
        assert await house.deadlines.tick(house.clock.now()) == 2
        assert (await house.task(root.id)).end_reason is EndReason.DEADLINE
        assert (await house.task(child.id)).end_reason is EndReason.PARENT_ENDED


async def test_three_missed_beats_end_a_task_and_a_beat_saves_it(tmp_path: Path) -> None:
    """Silence is counted from the last beat."""
    async with living(tmp_path) as house:
        task = await house.open(heartbeat=timedelta(seconds=10))
        await house.deadlines.tick(house.clock.now())
        await house.clock.advance(29)
        await house.world.database.write(lambda tx: tasks.beat(tx, task.id, house.clock.now()))
        await house.clock.advance(29)
        assert await house.deadlines.tick(house.clock.now()) == 0
        await house.clock.advance(1)
        assert await house.deadlines.tick(house.clock.now()) == 1
        assert (await house.task(task.id)).end_reason is EndReason.SILENT


async def test_silence_while_no_broker_ran_is_nobodys_fault(tmp_path: Path) -> None:
    """The first tick of a broker counts silence from now; a deadline that passed meanwhile stands."""
    clock = ManualClock()
    target = FakeTarget(clock)
    async with living(tmp_path, clock=clock, engine=FakeEngine(target)) as house:
        quiet = await house.open(heartbeat=timedelta(seconds=10))
        over = await house.open(heartbeat=timedelta(seconds=10), deadline=clock.now() + timedelta(seconds=50))
    await clock.advance(3600)
    async with living(tmp_path, clock=clock, engine=FakeEngine(target)) as house:
        assert await house.deadlines.tick(clock.now()) == 1
        assert not (await house.task(over.id)).is_live
        assert (await house.task(quiet.id)).is_live
        await clock.advance(30)
        assert await house.deadlines.tick(clock.now()) == 1


async def test_a_process_that_ended_ends_its_tasks(tmp_path: Path) -> None:
    """Every task bound to the instance, and no other."""
    async with living(tmp_path) as house:
        bound, free = await house.open(instance=WHO), await house.open()
        assert await house.processes.tick(house.clock.now()) == 0
        house.observer.states[WHO] = Observation.ENDED
        assert await house.processes.tick(house.clock.now()) == 1
        assert (await house.task(bound.id)).end_reason is EndReason.PROCESS_ENDED
        assert (await house.task(free.id)).is_live


async def test_a_silent_node_is_given_time_and_then_its_tasks_end(tmp_path: Path) -> None:
    """Seen again in between, the time begins anew."""
    async with living(tmp_path) as house:
        bound = await house.open(instance=WHO)
        for state, wait in [(Observation.UNOBSERVED, 50), (Observation.LIVE, 1), (Observation.UNOBSERVED, 59)]:
            house.observer.states[WHO] = state
            assert await house.processes.tick(house.clock.now()) == 0
            await house.clock.advance(wait)
        assert await house.processes.tick(house.clock.now()) == 0
        await house.clock.advance(1)
        assert await house.processes.tick(house.clock.now()) == 1
        assert (await house.task(bound.id)).end_reason is EndReason.NODE_SILENT
