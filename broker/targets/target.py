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
from broker.targets.breaker import Breaker
from ca.runtime.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a call ended: kept as a value, so that its failure ends nobody's task group."""

    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Target:
    """One target's calls.

    `deadline` is how long a call is waited for. Grants and endings have places of their own: a flood of one can't hold
    back the other.
    """

    name: str
    clock: Clock
    deadline: timedelta
    group: asyncio.TaskGroup = field(repr=False)
    grants: asyncio.Semaphore = field(repr=False)
    endings: asyncio.Semaphore = field(repr=False)
    breaker: Breaker = field(default_factory=Breaker)

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
        begun = asyncio.Event()
        call = self.group.create_task(self._run(work, places, begun), name=f"call {self.name}")
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

    def _give_up(self, call: asyncio.Task[_Answer], begun: asyncio.Event) -> NoReturn:
        if begun.is_set() or self.breaker.is_open:
            self.breaker.failed(self.clock.boot())
        if begun.is_set():
            raise OutcomeUnknown(f"the target `{self.name}` did not answer within {self.deadline}")
        call.cancel()
        raise TargetDown(f"the target `{self.name}` has too many calls under way")

    async def _run(self, work: Coroutine[Any, Any, Any], places: asyncio.Semaphore, begun: asyncio.Event) -> _Answer:
        try:
            await places.acquire()
        except asyncio.CancelledError:
            work.close()
            raise
        begun.set()
        try:
            answer = _Answer(value=await work)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answer = _Answer(error=error)
        finally:
            places.release()
        if isinstance(answer.error, TargetDown | OutcomeUnknown):
            self.breaker.failed(self.clock.boot())
        else:
            self.breaker.answered()
        return answer


@asynccontextmanager
async def open_target(
    name: str, clock: Clock, *, deadline: timedelta = timedelta(seconds=10), grants: int = 8, endings: int = 4
) -> AsyncIterator[Target]:
    """A target's calls; left only when those under way have ended."""
    async with asyncio.TaskGroup() as group:
        yield Target(
            name=name,
            clock=clock,
            deadline=deadline,
            group=group,
            grants=asyncio.Semaphore(grants),
            endings=asyncio.Semaphore(endings),
        )
