"""Laws 1, 2 and 5 with two brokers over one PostgreSQL that act at the same moment, and die at any step.

A history is a list of pairs of steps; of each pair one is played at each broker, at once. A death is a broker that
stops between two lines; another begins in its place while the other one goes on. In the end the oracle of one broker
holds: what may log in is what is active, what is active has a live task, and events are dense.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from broker.engines.protocol import Making
from broker.lifecycle.acknowledge import acknowledge
from broker.lifecycle.obtain import HandOver
from broker.loops.claims import Claims
from broker.loops.reaper import Reaper
from broker.model.lease import LeaseState
from broker.model.task import Task
from ca.errors import Problem
from ca.runtime import failpoint
from ca.runtime.database import open_database
from fakes.clock import ManualClock
from fakes.stores import postgres_address
from fakes.target import FakeEngine, FakeTarget
from fakes.world import AGENT, House, living

DEATHS = [
    f"{step}.{side}"
    for step in ("obtain.intend", "obtain.create", "obtain.activate", "reissue.replace", "withdraw.end_access")
    for side in ("before", "after")
]
STEP = some.one_of(
    some.tuples(some.just("open"), some.integers(0, 3)),
    some.tuples(some.just("obtain"), some.integers(0, 3), some.integers(0, 1)),
    some.tuples(some.just("obtain"), some.integers(0, 3), some.integers(0, 1)),
    some.tuples(some.just("acknowledge"), some.integers(0, 3)),
    some.tuples(some.just("end"), some.integers(0, 3)),
    some.tuples(some.just("tick")),
    some.tuples(some.just("die"), some.sampled_from(DEATHS)),
)
PAIRS = some.lists(some.tuples(STEP, STEP, some.sampled_from([0, 0, 2, 31])), max_size=10)
Step = tuple[Any, ...]


class Death(BaseException):
    """The process is no more."""


@dataclass
class Story:
    """What outlives every broker."""

    folder: Path
    address: str
    making: Making
    clock: ManualClock = field(default_factory=ManualClock)
    tasks: list[Task] = field(default_factory=list)
    handed: list[HandOver] = field(default_factory=list)
    target: FakeTarget = field(init=False)

    def __post_init__(self) -> None:
        self.target = FakeTarget(self.clock)

    async def step(self, house: House, step: Step) -> None:
        """Whatever is refused is refused."""
        verb, *arguments = step
        with suppress(Problem):
            await getattr(self, verb)(house, *arguments)

    async def open(self, house: House, which: int) -> None:
        parent = self.tasks[which] if which < len(self.tasks) else None
        if parent is None or (await house.task(parent.id)).is_live:
            self.tasks.append(await house.open(parent))

    async def obtain(self, house: House, which: int, key: int) -> None:
        if which < len(self.tasks):
            self.handed.append(await house.obtain(self.tasks[which], key=f"key {key}"))

    async def acknowledge(self, house: House, which: int) -> None:
        if which < len(self.handed):
            lease = self.handed[which].lease
            await acknowledge(house.world, lease.task, lease.id, str(AGENT), self.clock.now())

    async def end(self, house: House, which: int) -> None:
        if which < len(self.tasks):
            await house.end(self.tasks[which])

    async def tick(self, house: House) -> None:
        await house.reaper.claims.tick(house.world)
        await house.reap()
        await house.sweep()

    async def die(self, house: House, point: str) -> None:
        """Whichever broker reaches that point first; or none."""

        def death() -> None:
            raise Death

        failpoint._armed[point] = failpoint._Point(death, 1)

    async def look(self, house: House) -> None:
        """The oracle."""
        for _ in range(10):
            await self.tick(house)
            await self.clock.advance(16)
        leases = await house.leases()
        active = [lease for lease in leases if lease.state is LeaseState.ACTIVE]
        assert all([(await house.task(lease.task)).is_live for lease in active])
        assert {lease.handle.name for lease in active} == set(self.target.principals)
        assert all(lease.is_closed or lease in active for lease in leases)
        numbers = [event.epoch.n for event in await house.events() if event.epoch is not None]
        assert numbers == list(range(1, len(numbers) + 1))


@dataclass
class Place:
    """Where a broker runs, one life after the other."""

    story: Story
    asked: asyncio.Queue[tuple[Step, asyncio.Future[None]]] = field(default_factory=asyncio.Queue)

    async def do(self, step: Step) -> None:
        """Have it done, or have its broker die of it."""
        done = asyncio.get_running_loop().create_future()
        await self.asked.put((step, done))
        await done

    async def live(self) -> None:
        """For as long as the story goes on."""
        story = self.story
        while True:
            engine = FakeEngine(story.target, making=story.making)
            done: asyncio.Future[None] | None = None
            try:
                store = open_database(story.address)
                async with living(story.folder, clock=story.clock, engine=engine, store=store) as house:
                    house.reaper = Reaper(house.world, Claims(exclusive=False))
                    while True:
                        step, done = await self.asked.get()
                        await story.step(house, step)
                        done.set_result(None)
            except* Death:
                failpoint.disarm()
            if done is not None and not done.done():
                done.set_result(None)


async def _play(making: Making, history: Sequence[tuple[Step, Step, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        story = Story(folder, await postgres_address(folder), making)
        places = [Place(story), Place(story)]
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            lives = [group.create_task(place.live()) for place in places]
            for first, second, seconds in history:
                await asyncio.gather(places[0].do(first), places[1].do(second))
                await story.clock.advance(seconds)
            failpoint.disarm()
            for life in lives:
                life.cancel()
        async with living(
            folder,
            clock=story.clock,
            engine=FakeEngine(story.target, making=making),
            store=open_database(story.address),
        ) as house:
            house.reaper = Reaper(house.world, Claims(exclusive=False))
            await story.look(house)


OPEN, TICK, ASK, ASK_AGAIN, END = ("open", 9), ("tick",), ("obtain", 0, 0), ("obtain", 0, 1), ("end", 0)


@pytest.mark.parametrize("making", sorted(Making))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(PAIRS)
@example([(OPEN, TICK, 0), (ASK, ASK, 0), (ASK, END, 0)])
@example([(OPEN, ("die", "obtain.create.after"), 0), (ASK, ASK, 2), (TICK, END, 0)])
@example([(OPEN, TICK, 0), (ASK, ASK_AGAIN, 0), (END, END, 2), (TICK, TICK, 0)])
@example([(OPEN, TICK, 0), (ASK, ("die", "reissue.replace.after"), 0), (ASK, END, 31)])
def test_whatever_two_brokers_do_the_target_holds_what_the_store_says(
    making: Making, history: list[tuple[Step, Step, int]]
) -> None:
    """See the module."""
    asyncio.run(_play(making, history))
