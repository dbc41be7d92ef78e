"""The clock of law 7, with two readings of the test's own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from ca.runtime.clock import BOUND, STABLE, SystemClock, instant, micros
from fakes.clock import ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Readings:
    """Wall and boot time of an imagined machine."""

    def __init__(self) -> None:
        self.wall = micros(START) / 1e6
        self.boot = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def clock(self) -> SystemClock:
        return SystemClock(wall=lambda: self.wall, boot=lambda: self.boot)


def test_micros_and_instant_are_inverse() -> None:
    """A time survives the store to the microsecond."""
    moment = datetime(2026, 5, 4, 3, 2, 1, 999_999, tzinfo=UTC)
    assert instant(micros(moment)) == moment


def test_real_time_is_aware_and_near_boot_time() -> None:
    """The machine's own clock answers in UTC and goes forward."""
    clock = SystemClock()
    first, second = clock.now(), clock.now()
    assert first.tzinfo is UTC
    assert first <= second
    assert clock.trusted()


def test_time_asleep_counts() -> None:
    """An hour on CLOCK_BOOTTIME is an hour, however it was spent."""
    machine = Readings()
    clock = machine.clock()
    machine.passes(3600)
    assert clock.now() == START + timedelta(hours=1)
    assert clock.trusted()


def test_a_step_of_the_wall_clock_moves_nothing_and_ends_trust() -> None:
    """Setting the wall clock an hour ahead ends no deadline; nothing is granted meanwhile."""
    machine = Readings()
    clock = machine.clock()
    machine.wall += 3600
    assert clock.now() == START
    assert not clock.trusted()


def test_drift_within_the_bound_is_no_step() -> None:
    """NTP slewing by less than the bound changes nothing."""
    machine = Readings()
    clock = machine.clock()
    machine.wall += BOUND.total_seconds() - 0.1
    assert clock.trusted()
    assert clock.now() == START


def test_a_stable_new_offset_is_adopted_after_a_minute() -> None:
    """The anchor is taken anew once the wall clock has stayed where it was set."""
    machine = Readings()
    clock = machine.clock()
    machine.wall += 3600
    assert not clock.trusted()
    machine.passes(STABLE - 1)
    assert not clock.trusted()
    machine.passes(1)
    clock.now()
    assert clock.trusted()
    assert clock.now() == START + timedelta(hours=1, seconds=STABLE)


def test_a_wall_clock_that_keeps_stepping_is_never_adopted() -> None:
    """The minute begins again with every step."""
    machine = Readings()
    clock = machine.clock()
    for _ in range(10):
        machine.wall += 60
        assert not clock.trusted()
        machine.passes(STABLE - 1)
    assert not clock.trusted()


def test_a_step_that_is_undone_restores_trust_at_once() -> None:
    """Back within the bound, the old anchor still holds."""
    machine = Readings()
    clock = machine.clock()
    machine.wall += 3600
    assert not clock.trusted()
    machine.wall -= 3600
    assert clock.trusted()


async def test_sleep_of_nothing_returns() -> None:
    """A wait that is already over does not wait."""
    await SystemClock().sleep(-1)


async def test_the_manual_clock_wakes_sleepers_in_order() -> None:
    """Each sleeper sees its own moment, not the end of the advance."""
    clock = ManualClock(START)
    seen: list[tuple[str, timedelta]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.now() - START))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 5))
        group.create_task(sleeper("early", 2))
        await clock.advance(10)
    assert seen == [("early", timedelta(seconds=2)), ("late", timedelta(seconds=5))]
    assert clock.now() == START + timedelta(seconds=10)


async def test_the_manual_clock_forgets_cancelled_sleepers() -> None:
    """A sleeper that was cancelled is not woken and not counted."""
    clock = ManualClock(START)
    async with asyncio.TaskGroup() as group:
        sleeper = group.create_task(clock.sleep(5))
        await clock.settle()
        assert clock.sleeping == 1
        sleeper.cancel()
    await clock.advance(10)
    assert clock.sleeping == 0


async def test_the_manual_clock_loses_and_regains_trust_like_the_real_one() -> None:
    """A stepped wall clock is distrusted for a minute."""
    clock = ManualClock(START)
    clock.step_wall()
    assert not clock.trusted()
    assert clock.now() == START
    await clock.advance(STABLE)
    clock.now()
    assert clock.trusted()
