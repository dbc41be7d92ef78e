"""T7: a cursor over events must never pass one by: numbers are dense, in commit order, and belong to one life."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.events.confirmations import confirm
from broker.events.feed import Feed, Resync
from broker.model.event import Epoch, Event, EventKind
from broker.store import events, installation
from ca.errors import Stale
from ca.runtime.database import Transaction
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")


async def follow(house: House, feed: Feed, cursor: Epoch | None, count: int, root: Any = None) -> list[Any]:
    """The first `count` things a stream tells."""
    told: list[Any] = []
    stream = feed.stream(cursor, root)
    async with asyncio.timeout(60):
        async for one in stream:
            told.append(one)
            if len(told) == count:
                break
    await stream.aclose()  # type: ignore[attr-defined]
    return told


async def test_numbers_are_dense_whoever_writes_and_whoever_fails(tmp_path: Path) -> None:
    """Many tasks end at once, some units fail after they took a number: no number is missing or given twice."""
    async with living(tmp_path) as house:
        opened = [await house.open() for _ in range(40)]

        async def fail(tx: Transaction) -> None:
            task = opened[0]
            event = Event(kind=EventKind.TASK_CHANGED, at=house.clock.now(), task=task.id, root=task.root)
            await events.append(tx, event, event)
            raise Stale("on purpose")

        async def failing() -> None:
            with pytest.raises(Stale):
                await house.world.database.write(fail)

        await asyncio.gather(*(house.end(task) for task in opened), *(failing() for _ in range(40)))
        numbers = [event.epoch.n for event in await house.events() if event.epoch is not None]
        assert numbers == list(range(1, 41))


async def test_a_stream_tells_everything_after_its_cursor_once_and_in_order(tmp_path: Path) -> None:
    """From the store and from memory alike, also what is committed while it is read."""
    async with living(tmp_path) as house:
        feed = Feed(house.world.database, kept=8)
        for task in [await house.open() for _ in range(20)]:
            await house.end(task)
        await feed.tick(house.clock.now())
        first = (await house.events())[0].epoch
        assert first is not None
        async with asyncio.TaskGroup() as group:
            start = Epoch(first.incarnation, 0)
            following = group.create_task(follow(house, feed, start, 30))
            for task in [await house.open() for _ in range(10)]:
                await house.end(task)
                await feed.tick(house.clock.now())
        assert [event.epoch.n for event in following.result()] == list(range(1, 31))


async def test_a_tree_sees_its_own(tmp_path: Path) -> None:
    """A stream of one tree is told nothing of another."""
    async with living(tmp_path) as house:
        feed = Feed(house.world.database)
        await feed.tick(house.clock.now())
        ours, theirs = await house.open(), await house.open()
        child = await house.open(ours)
        cursor = feed.epoch
        await house.end(theirs)
        await house.end(ours)
        await feed.tick(house.clock.now())
        told = await follow(house, feed, cursor, 2, root=ours.root)
        assert [event.task for event in told] == [ours.id, child.id]


@pytest.mark.parametrize("kind", ["another life", "ahead", "forgotten"])
async def test_a_cursor_that_means_nothing_here_gets_a_snapshot(tmp_path: Path, kind: str) -> None:
    """Another incarnation, a number never reached, or one older than what is kept: resync, with what lives."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        for other in [await house.open() for _ in range(5)]:
            await house.end(other)
        now = await house.world.database.read(events.epoch)
        cursor = {
            "another life": Epoch("restored", now.n),
            "ahead": Epoch(now.incarnation, now.n + 1),
            "forgotten": Epoch(now.incarnation, 1),
        }[kind]
        if kind == "forgotten":
            await house.world.database.write(lambda tx: events.forget_before(tx, 4))
        feed = Feed(house.world.database)
        await feed.tick(house.clock.now())
        (resync,) = await follow(house, feed, cursor, 1)
        assert isinstance(resync, Resync)
        assert (resync.epoch, resync.tasks, resync.leases) == (now, ((task.id, 1),), (handed.lease.id,))


async def test_a_new_life_voids_every_cursor(tmp_path: Path) -> None:
    """After a restore the numbers go on, and no old cursor is believed."""
    async with living(tmp_path) as house:
        await house.end(await house.open())
        before = await house.world.database.read(events.epoch)
        await house.world.database.write(lambda tx: installation.begin_incarnation(tx, house.clock.now()))
        after = await house.world.database.read(events.epoch)
        assert (after.n, after.incarnation == before.incarnation) == (before.n, False)


async def test_a_gap_is_an_error_and_no_silence(tmp_path: Path) -> None:
    """A number that is missing from the store stops the feed."""
    async with living(tmp_path) as house:
        feed = Feed(house.world.database)
        await feed.tick(house.clock.now())
        for task in [await house.open() for _ in range(3)]:
            await house.end(task)

        async def lose(tx: Transaction) -> None:
            await tx.execute("DELETE FROM events WHERE n = 2")

        await house.world.database.write(lose)
        with pytest.raises(RuntimeError, match="gap"):
            await feed.tick(house.clock.now())


async def test_a_point_confirms_only_what_was_reached_and_never_goes_back(tmp_path: Path) -> None:
    """Its word is kept as its own; nonsense is refused."""
    async with living(tmp_path) as house:
        database = house.world.database
        for task in [await house.open() for _ in range(3)]:
            await house.end(task)
        now = await database.read(events.epoch)
        await confirm(database, "proxy", now, house.clock.now())
        await confirm(database, "proxy", Epoch(now.incarnation, 1), house.clock.now())
        for wrong in (Epoch(now.incarnation, 9), Epoch("other", 1)):
            with pytest.raises(Stale):
                await confirm(database, "proxy", wrong, house.clock.now())

        async def said(tx: Transaction) -> list[int]:
            return [row["n"] for row in await tx.fetch("SELECT n FROM confirmations ORDER BY point")]

        assert await database.read(said) == [3]
