"""Laws 1, 2 and 5 under any history: tasks open and end, targets fail both ways, the broker dies at any step.

A history is a list of steps; each is played on a real store and a target in memory, and a death is a broker that stops
between two lines and another that begins on the same store. Whatever the history, once the target answers and the
broker has ticked, an oracle that asks only the target and the tables finds:

    a principal that may log in ⇔ an active lease of a live task        no session of anything else
    every closed lease says when its access ended                       events and receipts without a gap

Clocks are stepped, forward and back, and each new process believes what the wall clock says then. At no moment is more
outside than the quotas let, and a kill that answers has left nothing alive of what it names.
"""

from __future__ import annotations

import ast
import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

import broker.lifecycle
from broker.engines.protocol import Making
from broker.lifecycle.acknowledge import acknowledge
from broker.lifecycle.kill import kill
from broker.lifecycle.obtain import HandOver
from broker.loops.set_back import SetBack
from broker.model.kill import Kill, Reach
from broker.model.lease import LeaseState
from broker.model.quota import Quotas
from broker.model.task import Task
from ca.errors import Problem
from ca.runtime import failpoint
from fakes.clock import ManualClock
from fakes.target import FakeEngine, FakeTarget
from fakes.world import AGENT, House, living


def points() -> list[str]:
    """Every fail-point of the lifecycle, read from its source."""
    found = set()
    for file in Path(broker.lifecycle.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint.reach":
                found.add(ast.literal_eval(node.args[0]))
    return sorted(found)


END, END_AFTER = "end_task.commit.before", "end_task.commit.after"
PUT_OFF = [("open", 9), ("obtain", 0, 0), ("fail", "end_access", False), ("end", 0), ("reap",)]
QUOTAS = Quotas(leases_per_task=2, leases_per_target=3)
VERBS = ["create", "replace", "renew", "occupy", "end_access", "clean_up", "names"]
STEPS = some.one_of(
    some.tuples(some.just("open"), some.integers(0, 5)),
    some.tuples(some.just("obtain"), some.integers(0, 5), some.integers(0, 2)),
    some.tuples(some.just("log in"), some.integers(0, 5)),
    some.tuples(some.just("acknowledge"), some.integers(0, 5)),
    some.tuples(some.just("end"), some.integers(0, 5)),
    some.tuples(some.just("kill"), some.sampled_from([Reach.TASK, Reach.TREE, Reach.AGENT]), some.integers(0, 5)),
    some.tuples(some.just("advance"), some.sampled_from([1, 16, 31, 61, 130])),
    some.tuples(some.just("fail"), some.sampled_from(VERBS), some.booleans()),
    some.tuples(some.just("reap")),
    some.tuples(some.just("sweep")),
    some.tuples(some.just("die"), some.sampled_from(points())),
    some.tuples(some.just("step clock"), some.sampled_from([2, 3600, -3600, -86400, 400 * 86400])),
)


class Death(BaseException):
    """The process is no more."""


@dataclass
class Story:
    """What outlives a broker: the store's folder, the target, and what agents hold."""

    folder: Path
    making: Making
    clock: ManualClock = field(default_factory=ManualClock)
    tasks: list[Task] = field(default_factory=list)
    handed: list[HandOver] = field(default_factory=list)
    target: FakeTarget = field(init=False)
    engine: FakeEngine = field(init=False)
    set_back: SetBack = field(init=False)
    set_back_by: int = 0
    """Seconds; when the clock goes back, what a create may still bring is waited for that much longer, shut."""

    def __post_init__(self) -> None:
        self.target = FakeTarget(self.clock)
        self.engine = FakeEngine(self.target, making=self.making)

    async def play(self, steps: Sequence[tuple[Any, ...]]) -> None:
        """Play every step, with as many lives as it takes; then look."""
        rest = list(steps)
        while rest:
            self.clock.restart()
            try:
                async with living(self.folder, clock=self.clock, engine=self.engine, quotas=QUOTAS) as house:
                    self.set_back = SetBack(house.world)
                    while rest:
                        await self._step(house, rest.pop(0))
                        await self._count(house)
            except* Death:
                pass
            failpoint.disarm()
        self.clock.restart()
        async with living(self.folder, clock=self.clock, engine=self.engine, quotas=QUOTAS) as house:
            self.set_back = SetBack(house.world)
            await self._look(house)

    async def _step(self, house: House, step: tuple[Any, ...]) -> None:
        verb, *arguments = step
        try:
            await getattr(self, "_" + verb.replace(" ", "_"))(house, *arguments)
        except Problem:
            await self.clock.settle()

    async def _open(self, house: House, which: int) -> None:
        parent = self.tasks[which] if which < len(self.tasks) else None
        if parent is None or (await house.task(parent.id)).is_live:
            self.tasks.append(await house.open(parent))

    async def _obtain(self, house: House, which: int, key: int) -> None:
        if which < len(self.tasks):
            self.handed.append(await house.obtain(self.tasks[which], key=f"key {key}"))

    async def _log_in(self, house: House, which: int) -> None:
        if which < len(self.handed):
            await self.target.login(self.handed[which].issued)

    async def _acknowledge(self, house: House, which: int) -> None:
        if which < len(self.handed):
            lease = self.handed[which].lease
            await acknowledge(house.world, lease.task, lease.id, str(AGENT), self.clock.now())

    async def _end(self, house: House, which: int) -> None:
        if which < len(self.tasks):
            await house.end(self.tasks[which])

    async def _kill(self, house: House, reach: Reach, which: int) -> None:
        if which >= len(self.tasks):
            return
        task = await house.task(self.tasks[which].id)
        named = Kill(reach=reach, name=str(task.owner) if reach is Reach.AGENT else task.id)
        done = await kill(house.world, named, words=None, actor="an operator", now=self.clock.now())
        assert done.left == 0
        reached = [await house.task(one.id) for one in self.tasks]
        if reach is not Reach.AGENT:
            reached = [one for one in reached if one.id == task.id or (reach is Reach.TREE and one.root == task.root)]
        assert not any(one.is_live for one in reached)

    async def _count(self, house: House) -> None:
        """What is open never exceeds what may be, nor is more there than what is open."""
        held = Counter(lease.task for lease in await house.leases() if not lease.is_closed)
        assert all(count <= 2 for count in held.values())
        assert len(self.target.principals) <= held.total() <= 3

    async def _advance(self, house: House, seconds: int) -> None:
        await self.clock.advance(seconds)

    async def _step_clock(self, house: House, seconds: int) -> None:
        self.clock.step_wall(timedelta(seconds=seconds))
        self.set_back_by += max(0, -seconds)

    async def _fail(self, house: House, verb: str, after: bool) -> None:  # noqa: FBT001
        self.engine.fail(verb, after=after)

    async def _reap(self, house: House) -> None:
        await self.set_back.tick(self.clock.now())
        await house.reap()

    async def _sweep(self, house: House) -> None:
        await house.sweep()

    async def _die(self, house: House, point: str) -> None:
        """At the next time that point is reached, or at once if it never is: the rest of the story tells."""

        def death() -> None:
            raise Death

        failpoint._armed[point] = failpoint._Point(death, 1)

    async def _look(self, house: House) -> None:
        self.engine._cues.clear()
        for _ in range(8):
            await self._reap(house)
            await house.sweep()
            await self.clock.advance(16)
        await house.reap()
        leases = await house.leases()
        active = [lease for lease in leases if lease.state is LeaseState.ACTIVE]
        assert all([(await house.task(lease.task)).is_live for lease in active])
        waiting = [lease for lease in leases if not lease.is_closed and lease not in active]
        assert self.set_back_by > 0 or not waiting
        assert all(lease.access_ended_at is not None or lease.state is LeaseState.IN_DOUBT for lease in waiting)
        opened = {name for name, principal in self.target.principals.items() if principal.enabled}
        assert {lease.handle.name for lease in active} == opened
        assert set(self.target.principals) - opened <= {lease.handle.name for lease in waiting}
        assert {session.name for session in self.target.sessions if session.open} <= opened
        assert all(lease.access_ended_at is not None for lease in leases if lease.is_closed)
        numbers = [event.epoch.n for event in await house.events() if event.epoch is not None]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("making", sorted(Making))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(some.lists(STEPS, max_size=25))
@example([("open", 9), ("die", "obtain.create.after"), ("obtain", 0, 0), ("end", 0)])
@example([("open", 9), ("obtain", 0, 0), ("die", "reissue.replace.after"), ("obtain", 0, 0), ("end", 0)])
@example([("open", 9), ("open", 0), ("obtain", 1, 0), ("end", 0), ("die", "withdraw.end_access.after"), ("reap",)])
@example([("open", 9), ("obtain", 0, 0), ("acknowledge", 0), ("step clock", -3600), ("die", END_AFTER), ("end", 0)])
@example([("open", 9), ("fail", "create", True), ("obtain", 0, 0), ("step clock", -3600), ("die", END), ("end", 0)])
@example([*PUT_OFF, ("step clock", -3600), ("advance", 1), ("die", "withdraw.end_access.before"), ("reap",)])
@example([*PUT_OFF, ("step clock", -86400), ("advance", 16), ("reap",), ("advance", 61), ("reap",)])
@example([("open", 9), ("fail", "create", True), ("obtain", 0, 0), ("fail", "occupy", True), ("reap",), ("reap",)])
def test_whatever_happens_the_target_holds_what_the_store_says(making: Making, steps: list[tuple[Any, ...]]) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(Story(Path(folder), making).play(steps))


def test_every_fail_point_stands_before_and_after() -> None:
    """A step that can be interrupted can be interrupted on both sides."""
    named = points()
    assert len(named) > 40
    assert {point.removesuffix(".before") for point in named if point.endswith(".before")} == {
        point.removesuffix(".after") for point in named if point.endswith(".after")
    }
