"""Calls to a target: bounded, never cancelled half-way, and one canary while it is down."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.errors import OutcomeUnknown, TargetDown
from broker.model.bounds import Bounds
from broker.targets.breaker import Breaker
from broker.targets.pace import Pace
from broker.targets.target import open_target
from fakes.clock import ManualClock


async def test_who_stops_waiting_does_not_stop_the_call() -> None:
    """After its deadline a call's outcome is unknown, and it goes on."""
    clock, go, done = ManualClock(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()

    async with open_target("t", clock, deadline=timedelta(seconds=5)) as target, asyncio.TaskGroup() as group:
        calling = group.create_task(_outcome(target.call(work())))
        await clock.advance(5)
        assert isinstance(await calling, OutcomeUnknown)
        go.set()
        await clock.settle()
        assert done.is_set()


async def test_a_call_that_found_no_place_was_never_made() -> None:
    """Too many at once: certain, and said so; endings have places of their own."""
    clock, go, made = ManualClock(), asyncio.Event(), []

    async def work(number: int) -> None:
        made.append(number)
        await go.wait()

    async with (
        open_target("t", clock, deadline=timedelta(seconds=5), bounds=Bounds(grants=1, endings=1)) as target,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_outcome(target.call(work(1))))
        await clock.settle()
        second = group.create_task(_outcome(target.call(work(2))))
        ending = group.create_task(_outcome(target.call(work(3), ending=True)))
        await clock.advance(5)
        assert isinstance(await second, TargetDown)
        assert isinstance(await ending, OutcomeUnknown)
        go.set()
        await clock.settle()
    assert made == [1, 3]


async def test_while_it_is_down_one_goes_to_look() -> None:
    """Everybody else is told at once; an answer, whatever it says, opens the door again."""
    clock, calls = ManualClock(), 0

    async def down() -> None:
        nonlocal calls
        calls += 1
        raise TargetDown("nobody is there")

    async def up() -> str:
        return "here"

    async with open_target("t", clock) as target:
        for _ in range(10):
            with pytest.raises(TargetDown):
                await target.call(down())
        assert calls == 1
        await clock.advance(1)
        with pytest.raises(TargetDown):
            await target.call(down())
        with pytest.raises(TargetDown):
            await target.call(up())
        await clock.advance(2)
        assert await target.call(up()) == "here"
        assert await target.call(up()) == "here"


async def test_a_call_that_never_comes_back_does_not_keep_its_place_for_ever() -> None:
    """After some deadlines its place is given free: what hangs must not stop what ends."""
    clock, never = ManualClock(), asyncio.Event()

    async def hangs() -> None:
        await never.wait()

    async def ends() -> str:
        return "done"

    async with (
        open_target("t", clock, deadline=timedelta(seconds=5), bounds=Bounds(endings=1)) as target,
        asyncio.TaskGroup() as group,
    ):
        hanging = group.create_task(_outcome(target.call(hangs(), ending=True)))
        await clock.advance(5)
        assert isinstance(await hanging, OutcomeUnknown)
        await clock.advance(10)
        second = group.create_task(_outcome(target.call(ends(), ending=True)))
        await clock.advance(5)
        assert isinstance(await second, TargetDown)
        await clock.advance(30)
        assert await target.call(ends(), ending=True) == "done"
        never.set()
        await clock.settle()


def test_a_backlog_is_drained_at_a_rate() -> None:
    """A second's worth at once, then as time goes on; without a backlog nothing is held."""
    pace = Pace(10)
    assert pace.room(0, 200) == 200
    pace.hold(100)
    assert pace.room(100, 200) == 10
    pace.spend(10, 10)
    assert pace.room(100, 200) == 0
    assert pace.room(101, 200) == 10
    pace.spend(3, 10)
    assert not pace.is_held
    assert pace.room(101, 200) == 200


def test_looks_become_rarer_and_never_stop() -> None:
    """The pause between two looks doubles, to at most fifteen seconds."""
    breaker, boot, looks = Breaker(), 0.0, 0
    breaker.failed(boot)
    while boot < 3600:
        boot += 0.1
        if breaker.admit(boot):
            looks += 1
            breaker.failed(boot)
    assert 3600 / 16 < looks < 3600 / 14
    assert breaker.admit(boot + 15)
    assert not breaker.admit(boot + 15)


async def _outcome(work: object) -> object:
    try:
        return await work  # type: ignore[misc]
    except (OutcomeUnknown, TargetDown) as problem:
        return problem
