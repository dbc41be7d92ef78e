"""A clock that a test moves by hand.

    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with background("reaper", reaper.tick, every=1.0, clock=clock):
        await clock.advance(10)          ten ticks, each at its own second, in order

The rules of trust are the real ones: it is a `SystemClock` whose two readings, wall and boot time, are ours.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ca.runtime.clock import SystemClock, micros

_BOOT = 1000.0
_MOST_TURNS = 10_000
_GUARD = 60.0


class ManualClock:
    """Time stands still until `advance` is awaited."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._boot = _BOOT
        self._wall = micros(now) / 1e6
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._real = SystemClock(wall=lambda: self._wall, boot=lambda: self._boot)

    def now(self) -> datetime:
        """Anchored wall time."""
        return self._real.now()

    def boot(self) -> float:
        """Seconds since an imagined boot."""
        return self._boot

    def trusted(self) -> bool:
        """Whether wall and boot time agree."""
        return self._real.trusted()

    async def sleep(self, seconds: float) -> None:
        """Return when `advance` has come so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._boot + seconds, next(self._order), woken))
        await woken

    @property
    def sleeping(self) -> int:
        """How many wait on this clock."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: each sleeper wakes at its own moment, in order, and runs as far as it can.

        What waits for a thread or a socket is not waited for.
        """
        await self.settle()
        end = self._boot + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # its sleeper was cancelled
                continue
            self._move_to(max(due, self._boot))
            woken.set_result(None)
            await self.settle()
        self._move_to(end)
        await self.settle()

    async def until(self, condition: Callable[[], bool], *, step: float = 0.0) -> None:
        """Advance by `step` until `condition` holds; also waits for threads and sockets, a minute at most."""
        async with asyncio.timeout(_GUARD):
            while not condition():
                await self.advance(step)
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Let everything that can run now run, until all wait."""
        loop = asyncio.get_running_loop()
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if not loop._ready:  # type: ignore[attr-defined]
                return
        raise AssertionError("something keeps running without ever waiting")

    def step_wall(self, by: timedelta = timedelta(hours=1)) -> None:
        """Set the machine's wall clock: `trusted()` is false until a minute has passed without another step."""
        self._wall += by.total_seconds()
        self._real.trusted()

    def restart(self) -> None:
        """Another process reads it: whatever the wall clock says now is believed."""
        self._real = SystemClock(wall=lambda: self._wall, boot=lambda: self._boot)

    def _move_to(self, boot: float) -> None:
        self._wall += boot - self._boot
        self._boot = boot
