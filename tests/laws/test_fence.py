"""Law 1: whatever the order of grants, ends, changes and answers, nothing is handed over after its task ended.

Each grant is held inside the target and let go at a moment the test draws; ends, narrowings and retries fall between.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from broker.errors import Fenced
from broker.model.ids import LeaseId
from broker.model.lease import LeaseState
from broker.model.task import EndReason, Task, TaskEvent
from broker.store import tasks
from ca.errors import Problem
from fakes.stores import DRIVERS
from fakes.world import House, living

MOVES = some.lists(
    some.tuples(some.sampled_from(["ask", "answer", "end", "narrow", "reap", "child"]), some.integers(0, 3)),
    min_size=1,
    max_size=20,
)


@dataclass
class Play:
    """Tasks, and grants under way."""

    house: House
    group: asyncio.TaskGroup
    tasks: list[Task]
    ended: set[str] = field(default_factory=set)
    gates: list[tuple[asyncio.Event, asyncio.Event]] = field(default_factory=list)
    handed_after_its_end: list[str] = field(default_factory=list)

    async def move(self, verb: str, which: int) -> None:
        """One move; those that make no sense now are none."""
        task = self.tasks[which % len(self.tasks)]
        if verb == "ask":
            await self._ask(task)
        elif verb == "answer" and self.gates:
            self.gates.pop(which % len(self.gates))[1].set()
        elif verb == "end":
            self.ended |= {ended.id for ended in await self.house.end(task)}
        elif verb == "narrow" and task.id not in self.ended:
            await self._narrow(task)
        elif verb == "reap":
            await self.house.reap()
        elif verb == "child" and task.id not in self.ended:
            self.tasks.append(await self.house.open(task))
        await self.house.clock.settle()

    async def _ask(self, task: Task) -> None:
        gate = self.house.engine.hold("create")
        asking = self.group.create_task(self._obtain(task))
        arrived = self.group.create_task(gate[0].wait())
        await asyncio.wait({asking, arrived}, return_when=asyncio.FIRST_COMPLETED)
        if arrived.done():
            self.gates.append(gate)
        else:
            arrived.cancel()
            self.house.engine._held["create"].remove(gate)

    async def _obtain(self, task: Task) -> None:
        try:
            handed = await self.house.obtain(await self.house.task(task.id))
        except Problem:
            return
        lease = await self.house.lease(handed.lease.id)
        ended_at = await self._ended_before(task, lease.id)
        if ended_at:
            self.handed_after_its_end.append(task.id)

    async def _ended_before(self, task: Task, lease: LeaseId) -> bool:
        """By the order of commits: was the task's end written before the lease was issued?"""
        order = [(str(event.kind), event.task, event.lease) for event in await self.house.events()]
        issued = order.index(("lease.issued", task.id, lease))
        return ("task.ended", task.id, None) in order[:issued]

    async def _narrow(self, task: Task) -> None:
        present = await self.house.task(task.id)
        changed = replace(present, version=present.version + 1, scope=replace(present.scope, roles=frozenset()))
        await self.house.world.database.write(lambda tx: tasks.update(tx, changed, present.version))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(MOVES)
def test_nothing_is_handed_over_after_the_end_and_nothing_stays(moves: list[tuple[str, int]]) -> None:
    """In commit order no lease is issued behind its task's end; in the end nothing of an ended task is left."""
    _play("sqlite", moves)


def test_the_same_moves_have_the_same_end_on_postgresql() -> None:
    """A server cannot be started anew for each of sixty plays, so there are fewer."""

    async def both(seed: list[list[tuple[str, int]]]) -> None:
        for moves in seed:
            with tempfile.TemporaryDirectory() as folder:
                await _played("postgres", moves, Path(folder))

    verbs = ["ask", "ask", "child", "answer", "end", "narrow", "ask", "reap", "answer", "end"]
    turns = [[*verbs[n:], *verbs[:n]] for n in range(len(verbs))]
    asyncio.run(both([[(verb, place % 3) for place, verb in enumerate(turn)] for turn in turns]))


def _play(driver: str, moves: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_played(driver, moves, Path(folder)))


async def _played(driver: str, moves: list[tuple[str, int]], folder: Path) -> None:
    async with living(folder, store=DRIVERS[driver](folder)) as house, asyncio.TaskGroup() as group:
        play = Play(house, group, [await house.open(), await house.open()])
        for verb, which in moves:
            await play.move(verb, which)
        for _, go in play.gates:
            go.set()
        await house.clock.until(lambda: not house.world.in_flight)
        for _ in range(6):
            await house.reap()
            await house.clock.advance(5)
        assert not play.handed_after_its_end
        for lease in await house.leases():
            task = await house.task(lease.task)
            assert task.is_live or lease.is_closed
            principal = house.engine.target.principals.get(lease.handle.name)
            assert (principal is not None) == (lease.state is LeaseState.ACTIVE)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
async def test_the_fence_refuses_every_other_version(driver: str, tmp_path: Path) -> None:
    """Only the version that was decided on, of a task whose whole chain lives."""
    async with living(tmp_path, store=DRIVERS[driver](tmp_path)) as house:
        root = await house.open()
        child = await house.open(root)
        database = house.world.database
        line = await database.write(lambda tx: tasks.touch(tx, child.id, 1))
        assert [link.id for link in line] == [root.id, child.id]
        with pytest.raises(Fenced):
            await database.write(lambda tx: tasks.touch(tx, child.id, 2))
        await house.end(child)
        with pytest.raises(Fenced):
            await database.write(lambda tx: tasks.touch(tx, child.id, 2))


@pytest.mark.parametrize("driver", sorted(DRIVERS))
async def test_liveness_is_derived_even_when_a_row_was_missed(driver: str, tmp_path: Path) -> None:
    """A child written into a tree that had ended gives nothing: every use walks up to the root (T6)."""
    async with living(tmp_path, store=DRIVERS[driver](tmp_path)) as house:
        root = await house.open()
        await house.end(root)
        missed = await house.open(root)
        with pytest.raises(Fenced, match="above"):
            await house.obtain(missed)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
async def test_an_end_repeats_down_the_tree_until_no_row_changes(driver: str, tmp_path: Path) -> None:
    """Deep and wide; told parents first; a second end changes nothing."""
    async with living(tmp_path, store=DRIVERS[driver](tmp_path)) as house:
        root = await house.open()
        line = [root]
        for _ in range(12):
            line.append(await house.open(line[-1]))
        ended = await house.end(line[3], EndReason.OPERATOR, event=TaskEvent.CANCEL, words="enough")
        assert [task.id for task in ended] == [task.id for task in line[3:]]
        assert {task.end_reason for task in ended[1:]} == {EndReason.PARENT_ENDED}
        assert (await house.task(root.id)).is_live
        assert not await house.end(line[3])
