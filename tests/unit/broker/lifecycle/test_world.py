"""What the lifecycle is lived with: what is finished whoever goes away, who is refused, what a process holds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from broker.engines.protocol import Listing
from broker.errors import Fenced, TargetDown
from broker.lifecycle import end_task, exclusive, flight
from broker.lifecycle.flight import InFlight
from broker.lifecycle.world import promised
from broker.model.ids import InstanceId, LeaseId
from broker.model.lease import IDENTITY
from broker.model.task import EndReason
from ca.runtime.database import Duplicate
from fakes.clock import ManualClock
from fakes.target import FakeEngine, FakeTarget, Unlisted
from fakes.world import living, role


async def test_work_is_finished_although_whoever_asked_went_away(tmp_path: Path) -> None:
    """What was begun outside is carried to its end; leaving the world waits for it."""
    done: list[str] = []
    async with living(tmp_path) as house:
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await go.wait()
            done.append("work")

        async with asyncio.TaskGroup() as group:
            asking = group.create_task(house.world.finish(work()))
            await begun.wait()
            asking.cancel()
        assert asking.cancelled()
        go.set()
    assert done == ["work"]


async def test_what_fails_fails_where_it_is_waited_for_and_ends_nothing_else(tmp_path: Path) -> None:
    """The group of all work lives on."""
    async with living(tmp_path) as house:

        async def work(error: Exception | None) -> str:
            if error is not None:
                raise error
            return "well"

        with pytest.raises(Fenced, match="no"):
            await house.world.finish(work(Fenced("no")))
        assert await house.world.finish(work(None)) == "well"


async def test_an_end_nobody_could_write_refuses_every_task_below_it(tmp_path: Path) -> None:
    """By any task of its chain, and no other."""
    async with living(tmp_path) as house:
        top = await house.open()
        task, beside = await house.open(top), await house.open()
        house.world.refuse_unrecorded((top, task))
        now = house.clock.now()
        house.world.unrecorded[top.id] = end_task.because(house.world, top.id, EndReason.SILENT, now)
        for line in ((top,), (top, task)):
            with pytest.raises(Fenced):
                house.world.refuse_unrecorded(line)
        house.world.refuse_unrecorded((beside,))


async def test_a_target_that_is_not_there_is_down(tmp_path: Path) -> None:
    """Whether its engine or its calls are missing."""
    async with living(tmp_path) as house:
        engine, calls = house.world.at("orders-db")
        assert (engine, calls) == (house.engine, house.world.targets["orders-db"])
        for missing in (replace(house.world, engines={}), replace(house.world, targets={})):
            with pytest.raises(TargetDown):
                missing.at("orders-db")


@pytest.mark.parametrize(("bound", "served"), [(True, True), (True, False), (False, True)])
async def test_a_task_of_a_process_is_to_have_an_identity_where_there_are_such(
    tmp_path: Path, *, bound: bool, served: bool
) -> None:
    """It is asked for at once."""
    async with living(tmp_path) as house:
        engines = {**house.world.engines, IDENTITY: house.engine} if served else house.world.engines
        world = replace(house.world, engines=engines)
        task = await house.open(instance=InstanceId("0" * 32) if bound else None)
        world.name_soon(task)
        assert world.nameless == ({task.id} if bound and served else set())
        if bound and served:
            async with asyncio.timeout(60):
                await world.identities.wait()


def test_what_is_promised_of_a_sweep_is_what_the_engine_can_do() -> None:
    """Only one that can tell its names is swept."""
    target = FakeTarget(ManualClock())
    assert isinstance(FakeEngine(target), Listing)
    assert promised(FakeEngine(target), role()).swept
    assert not promised(Unlisted(target), role()).swept


async def test_a_hold_lasts_for_as_long_as_a_call_can_take() -> None:
    """Then it holds no more, though nobody let go; letting go twice is once."""
    clock, lease = ManualClock(), LeaseId("l" + "0" * 26)
    held = InFlight(clock)
    assert lease not in held
    held.add(lease)
    await clock.advance(flight.LONGEST - 0.001)
    assert (lease in held, len(held)) == (True, 1)
    await clock.advance(0.001)
    assert lease not in held
    held.add(lease)
    assert lease in held
    held.discard(lease)
    held.discard(lease)
    assert (lease in held, len(held)) == (False, 0)


async def test_a_second_row_is_a_second_claim_only_where_something_is_claimed(tmp_path: Path) -> None:
    """Of a target that lends nothing it is a fault of ours, and is not called anything else."""
    async with living(tmp_path) as house:
        assert exclusive.beneath(house.world, house.role) == ("orders-db",)
        with pytest.raises(Duplicate), exclusive.claimed_once(house.world, house.role):
            raise Duplicate("there is such a row")
