"""What stands between us and a system that may be down: a bounded number of calls, each finished or marked.

A call to a target is never cancelled half-way: what was sent can't be called back, and a principal nobody waits for is
a leak (testing 4.26). Whoever waits may stop waiting (a client hangs up, the deadline passes); the call itself goes on
in the target's own task group, keeps its place among the calls, and ends by the target's own limits. Stopping waits for
those under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from broker.errors import OutcomeUnknown, TargetDown
from broker.model.bounds import Bounds
from broker.targets.breaker import Breaker
from broker.targets.pace import Pace
from ca.runtime.clock import Clock

T = TypeVar("T")

_LOST_AFTER = 6
"""After so many deadlines a call that never came back gives its place free: what hangs must not stop what ends."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a call ended: kept as a value, so that its failure ends nobody's task group."""

    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Place:
    """One of the places for calls: taken once, and left once whoever leaves it."""

    places: asyncio.Semaphore
    taken: bool = False
    left: bool = False

    async def take(self) -> None:
        await self.places.acquire()
        self.taken = True

    def leave(self) -> None:
        if self.taken and not self.left:
            self.left = True
            self.places.release()


@dataclass(slots=True)
class Target:
    """One target's calls.

    `deadline` is how long a call is waited for. Grants and endings have places of their own: a flood of one can't hold
    back the other. `pace` is kept by who ends many.
    """

    name: str
    clock: Clock
    deadline: timedelta
    group: asyncio.TaskGroup = field(repr=False)
    grants: asyncio.Semaphore = field(repr=False)
    endings: asyncio.Semaphore = field(repr=False)
    breaker: Breaker = field(default_factory=Breaker)
    pace: Pace = field(default_factory=lambda: Pace(Bounds().rate))

    async def call(self, work: Coroutine[Any, Any, T], *, ending: bool = False) -> T:
        """Run `work` and wait for it up to the deadline.

        Raises:
            TargetDown: the target is known to be down, or no place became free in time; `work` was not begun.
            OutcomeUnknown: `work` goes on, and is no longer waited for.
            Problem: what `work` raised.
        """
        places = self.endings if ending else self.grants
        if not self.breaker.admit(self.clock.boot()):
            work.close()
            raise TargetDown(f"the target `{self.name}` does not answer, it is looked at again soon")
        begun = _Place(places)
        call = self.group.create_task(self._run(work, begun), name=f"call {self.name}")
        timer = self.group.create_task(self.clock.sleep(self.deadline.total_seconds()), name=f"timer {self.name}")
        try:
            await asyncio.wait({call, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if not call.done():
            self._give_up(call, begun)
        answer = call.result()
        if answer.error is not None:
            raise answer.error
        value: T = answer.value
        return value

    def _give_up(self, call: asyncio.Task[_Answer], place: _Place) -> NoReturn:
        if place.taken or self.breaker.is_open:
            self.breaker.failed(self.clock.boot())
        if place.taken:
            self.group.create_task(self._reclaim(call, place), name=f"lost {self.name}")
            raise OutcomeUnknown(f"the target `{self.name}` did not answer within {self.deadline}")
        call.cancel()
        raise TargetDown(f"the target `{self.name}` has too many calls under way")

    async def _run(self, work: Coroutine[Any, Any, Any], place: _Place) -> _Answer:
        try:
            await place.take()
        except asyncio.CancelledError:
            work.close()
            raise
        try:
            answer = _Answer(value=await work)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answer = _Answer(error=error)
        finally:
            place.leave()
        if isinstance(answer.error, TargetDown | OutcomeUnknown):
            self.breaker.failed(self.clock.boot())
        else:
            if self.breaker.is_open:
                self.pace.hold(self.clock.boot())
            self.breaker.answered()
        return answer

    async def _reclaim(self, call: asyncio.Task[_Answer], place: _Place) -> None:
        """Wait on for a call that nobody waits for, and then no longer keep its place for it."""
        lost = self.group.create_task(self.clock.sleep(self.deadline.total_seconds() * (_LOST_AFTER - 1)))
        await asyncio.wait({call, lost}, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        place.leave()


@asynccontextmanager
async def open_target(
    name: str, clock: Clock, *, deadline: timedelta = timedelta(seconds=10), bounds: Bounds | None = None
) -> AsyncIterator[Target]:
    """A target's calls; left only when those under way have ended."""
    bounds = bounds or Bounds()
    async with asyncio.TaskGroup() as group:
        yield Target(
            name=name,
            clock=clock,
            deadline=deadline,
            group=group,
            grants=asyncio.Semaphore(bounds.grants),
            endings=asyncio.Semaphore(bounds.endings),
            pace=Pace(bounds.rate),
        )
