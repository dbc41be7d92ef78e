"""The one clock: wall time anchored to CLOCK_BOOTTIME.

Law 7: nothing that decides reads a clock. A process holds one `Clock`, its composition root passes `now` on, and SQL
never asks the time. The wall clock may be stepped by hand or by NTP and CLOCK_MONOTONIC stands still while a laptop
sleeps; CLOCK_BOOTTIME does neither. So the time is read once, at the start, and from then on it advances with
CLOCK_BOOTTIME: a step of the wall clock ends nobody's task. While the two disagree by more than `BOUND` the clock is
not `trusted()` and whoever gives access stops giving it (traps 16); after a stable minute the anchor is taken anew.

Times are aware `datetime` values in UTC; stores keep them as whole microseconds (`micros`, `instant`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

BOUND = timedelta(seconds=5)
"""How far wall time may wander from the anchored time before grants stop."""

STABLE = 60.0
"""Seconds for which a new offset must hold before the clock adopts it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _wall() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock(Protocol):
    """What a process knows of time."""

    def now(self) -> datetime:
        """The current time, aware and in UTC."""

    def boot(self) -> float:
        """Seconds since this machine booted, time asleep included; only differences mean something."""

    def trusted(self) -> bool:
        """Whether wall time and boot time agree; nothing that gives access may go on when they don't."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or at once when it is not positive."""


def micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware `moment`: the form in which stores keep a time."""
    return (moment - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    """The inverse of `micros`."""
    return _EPOCH + value * _MICROSECOND


class SystemClock:
    """The machine's clock; made once per process, in its composition root.

    `wall` and `boot` are its two readings, in seconds; only a test has a reason to give its own.
    """

    def __init__(self, *, wall: Callable[[], float] = _wall, boot: Callable[[], float] = _boot) -> None:
        self._read_wall = wall
        self._read_boot = boot
        self._offset = wall() - boot()
        self._other: tuple[float, float] | None = None  # (offset seen, boot time it was first seen at)

    def now(self) -> datetime:
        """Anchored wall time."""
        self._watch()
        return _EPOCH + timedelta(seconds=self._offset + self.boot())

    def boot(self) -> float:
        """CLOCK_BOOTTIME in seconds."""
        return self._read_boot()

    def trusted(self) -> bool:
        """False from the moment a step of the wall clock is seen until it has been stable for a minute."""
        self._watch()
        return self._other is None

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop; after a suspend the caller finds `now()` far ahead, as it should."""
        await asyncio.sleep(max(0.0, seconds))

    def _watch(self) -> None:
        offset, bound = self._read_wall() - self.boot(), BOUND.total_seconds()
        if abs(offset - self._offset) <= bound:
            self._other = None
            return
        if self._other is None or abs(offset - self._other[0]) > bound:
            self._other = (offset, self.boot())
            return
        if self.boot() - self._other[1] >= STABLE:
            self._offset, self._other = offset, None
