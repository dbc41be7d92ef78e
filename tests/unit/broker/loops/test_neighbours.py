"""What a broker hears of the others, and what it does when the store becomes another one under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.loops.claims import Claims
from broker.loops.neighbours import neighbours
from broker.store import brokers, installation
from ca.runtime.bell import SharedWake
from ca.runtime.database import open_database
from fakes.clock import ManualClock
from fakes.stores import postgres_address
from fakes.world import House, living


@asynccontextmanager
async def beside(house: House, claims: Claims, read: Callable[[], object] = lambda: None) -> AsyncIterator[SharedWake]:
    """One of several."""
    feed = SharedWake()

    async def again() -> None:
        read()

    async with neighbours(house.world, claims, feed, again, lambda _: lambda _: None):
        yield feed


async def test_alone_over_its_store_it_does_nothing(tmp_path: Path) -> None:
    """Nothing is written, and nobody is waited for."""
    async with living(tmp_path) as house, beside(house, Claims()):
        await house.clock.advance(5)
        assert await house.world.database.read(brokers.counters) == {}


async def test_what_one_commits_wakes_the_other_and_its_own_feed(tmp_path: Path) -> None:
    """And has operators read again, so that one who was removed is out at every broker."""
    clock, address, times = ManualClock(), await postgres_address(tmp_path), list[str]()
    async with (
        living(tmp_path, clock=clock, store=open_database(address)) as one,
        living(tmp_path, clock=clock, store=open_database(address)) as other,
        beside(one, Claims(exclusive=False)) as here,
        beside(other, Claims(exclusive=False), lambda: times.append("read")) as there,
    ):
        assert len(await one.world.database.read(brokers.counters)) == 2
        await _woken(clock, there)  # the bell is connected
        before = len(times)
        here.set()
        await _woken(clock, here)
        await _woken(clock, there)
        await clock.until(lambda: len(times) > before)
    async with open_database(address) as store:
        assert await store.read(brokers.counters) == {}, "who stops in order takes its counter with it"


async def test_it_dies_when_another_one_begins_another_incarnation(tmp_path: Path) -> None:
    """Somebody said of the store, at another broker, that it was restored: nothing remembered here is true."""
    async with living(tmp_path, store=open_database(await postgres_address(tmp_path))) as house:
        now = house.clock.now()
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="another incarnation"), flatten_subgroups=True):
            async with beside(house, Claims(exclusive=False)):
                await house.world.database.write(lambda tx: installation.begin_incarnation(tx, now))
                await house.clock.until(lambda: False, step=1)


async def _woken(clock: ManualClock, wake: SharedWake) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wake.wait())
        await clock.until(waiting.done, step=0.01)
