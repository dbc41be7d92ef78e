"""One feed and its many readers: nobody loses anything, nobody delays anybody, nothing is read or worded twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker.events.feed import Feed, Reader, Resync
from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import TaskId
from broker.store import events
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, database: Any) -> None:
        self._database, self.reads = database, 0

    async def read(self, unit: Any) -> Any:
        self.reads += 1
        return await self._database.read(unit)

    async def write(self, unit: Any, *, ending: bool = False) -> Any:
        return await self._database.write(unit, ending=ending)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A broker without doors."""
    async with asyncio.timeout(60), living(tmp_path, wrap=Counted) as found:
        yield found


async def begun(house: House, **more: Any) -> Feed:
    """A feed that has read what there is."""
    feed = Feed(house.world.database, **more)
    await feed.tick(house.clock.now())
    return feed


async def happen(house: House, feed: Feed, times: int) -> list[TaskId]:
    """So many events, each of a tree of its own."""
    ended = []
    for _ in range(times):
        task = await house.open()
        await house.end(task)
        ended.append(task.id)
    await feed.tick(house.clock.now())
    return ended


async def heard(reader: Reader, many: int) -> list[int]:
    """The numbers of so many events, as they come; a new beginning is told as minus its number."""
    found: list[int] = []
    while len(found) < many:
        found += numbers(await reader.next(30))
    return found


def numbers(lines: Sequence[Event | Resync]) -> list[int]:
    """See `heard`."""
    said = [(line, line.epoch) for line in lines]
    return [-epoch.n if isinstance(line, Resync) else epoch.n for line, epoch in said if epoch is not None]


async def test_each_of_many_readers_hears_everything_in_order(house: House) -> None:
    """Two hundred that wait, while ten that read nothing hold nobody up and lose nothing."""
    feed = await begun(house)
    idle = [feed.reader(feed.epoch, None) for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        hearing = [group.create_task(heard(feed.reader(None, None), 12)) for _ in range(200)]
        for _ in range(6):
            await happen(house, feed, 2)
    assert [task.result() for task in hearing] == [list(range(1, 13))] * 200
    for reader in idle:
        assert await heard(reader, 12) == list(range(1, 13))


async def test_who_reads_nothing_for_long_goes_on_from_the_store(house: House) -> None:
    """Further back than what is in memory, and one piece after the other without a seam."""
    feed = await begun(house, kept=4)
    behind = feed.reader(None, None)
    await happen(house, feed, 9)
    assert await heard(behind, 9) == list(range(1, 10))
    await happen(house, feed, 3)
    assert await heard(behind, 3) == [10, 11, 12]


async def test_a_tree_is_woken_by_its_own(house: House) -> None:
    """Thirty events of others don't even wake it; it goes on after them."""
    feed = await begun(house)
    task = await house.open()
    looks = 0
    real = feed.after

    async def after(number: int, root: TaskId | None) -> Any:
        nonlocal looks
        looks += 1
        return await real(number, root)

    feed.after = after  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(heard(feed.reader(None, task.root), 1))
        for _ in range(10):
            await happen(house, feed, 3)
        assert looks == 1
        await house.end(task)
        await feed.tick(house.clock.now())
    assert (hearing.result(), looks) == ([31], 2)


async def test_an_event_is_worded_once(house: House) -> None:
    """Every stream writes the same bytes, which hold its cursor, its kind and its body."""
    feed = await begun(house)
    (task,) = await happen(house, feed, 1)
    lines = [await feed.reader(Epoch(feed.epoch.incarnation, 0), None).next(1) for _ in range(2)]
    words = [feed.words(line) for (line,) in lines if isinstance(line, Event)]
    assert words[0] is words[1]
    assert words[0].startswith(f"id: {feed.epoch}\nevent: {EventKind.TASK_ENDED}\ndata: ".encode())
    assert task.encode() in words[0]


@pytest.mark.parametrize("root", [False, True], ids=["everything", "a tree"])
async def test_what_was_forgotten_under_a_reader_is_no_silent_loss(house: House, root: bool) -> None:  # noqa: FBT001
    """It begins anew with what lives, and goes on from there."""
    feed = await begun(house, kept=2)
    mine = await house.open()
    reader = feed.reader(None, mine.root if root else None)
    await happen(house, feed, 8)
    await house.world.database.write(lambda tx: events.forget_before(tx, 6))
    (resync,) = await reader.next(30)
    assert isinstance(resync, Resync)
    assert (resync.epoch.n, resync.tasks) == (8, ((mine.id, 1),))
    await house.end(mine)
    await feed.tick(house.clock.now())
    assert await heard(reader, 1) == [9]


async def test_a_feed_that_stood_still_too_long_lets_its_readers_begin_anew(house: House) -> None:
    """A process that was frozen for longer than events are kept: no gap is passed over, and it goes on."""
    feed = await begun(house)
    reader = feed.reader(None, None)
    for _ in range(5):
        await house.end(await house.open())
    await house.world.database.write(lambda tx: events.forget_before(tx, 4))
    await feed.tick(house.clock.now())
    assert numbers(await reader.next(30)) == [-5]
    await happen(house, feed, 1)
    assert await heard(reader, 1) == [6]


async def test_everybody_begins_anew_by_one_look(house: House) -> None:
    """After a restore all cursors are void at once: the store is asked for what lives once."""
    await house.open()
    feed = await begun(house)
    void = Epoch("restored", 3)
    before = house.world.database.inner.reads  # type: ignore[attr-defined]
    readers = [feed.reader(void, None) for _ in range(50)]
    told = await asyncio.gather(*(reader.next(30) for reader in readers))
    assert {type(line) for (line,) in told} == {Resync}
    assert house.world.database.inner.reads - before == 50 + 1  # type: ignore[attr-defined]


async def test_who_is_near_costs_the_store_nothing(house: House) -> None:
    """Ten thousand that come back with a fresh cursor ask nothing of it."""
    feed = await begun(house)
    await happen(house, feed, 5)
    before = house.world.database.inner.reads  # type: ignore[attr-defined]
    place = Epoch(feed.epoch.incarnation, 2)
    assert await heard(feed.reader(place, None), 3) == [3, 4, 5]
    assert await feed.reader(feed.epoch, None).next(0) == ()
    assert house.world.database.inner.reads == before  # type: ignore[attr-defined]


async def test_a_reader_that_waits_in_vain_is_told_so(house: House) -> None:
    """After its patience, so that its stream can beat; and nothing is lost by that."""
    feed = await begun(house)
    reader = feed.reader(None, None)
    assert await reader.next(0.001) == ()
    await happen(house, feed, 1)
    assert await heard(reader, 1) == [1]
