"""How long things took: percentiles by sorting, and the CPU seconds of one process by its own account.

Everything is measured with CLOCK_MONOTONIC, which all processes of a machine share: what one process began and another
saw end is one difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

_OF_A_PROCESS = 2
"""CPUCLOCK_SCHED of <linux/posix-timers.h>: user and system time of all threads of a process, in nanoseconds."""


def now() -> float:
    """Seconds; only differences mean something."""
    return time.monotonic()


def cpu_seconds(pid: int) -> float:
    """What a process has used of all cores so far. Its children are not in it."""
    return time.clock_gettime((~pid << 3) | _OF_A_PROCESS)


@dataclass(frozen=True, slots=True)
class Spread:
    """A sample of seconds."""

    seconds: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Sorted once."""
        return cls(tuple(sorted(seconds)))

    def milliseconds(self, share: float) -> float:
        """The smallest value that `share` of the sample do not exceed (nearest rank, nothing is interpolated)."""
        return 1000 * self.seconds[math.ceil(share * len(self.seconds)) - 1]

    @property
    def n(self) -> int:
        """How many."""
        return len(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many things done in so much time, with so much of a CPU."""

    done: int
    seconds: float
    cpu: float
    each: Spread = Spread(())

    @property
    def rate(self) -> float:
        """Per second of the clock on the wall."""
        return self.done / self.seconds

    @property
    def rate_per_core(self) -> float:
        """Per CPU second of the process that did them."""
        return self.done / self.cpu

    def __add__(self, other: Load) -> Load:
        """Both, one after the other."""
        return Load(
            done=self.done + other.done,
            seconds=self.seconds + other.seconds,
            cpu=self.cpu + other.cpu,
            each=Spread.of(self.each.seconds + other.each.seconds),
        )
