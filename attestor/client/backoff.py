"""How long to wait before asking again."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ca.runtime.clock import Clock


def scattered() -> float:
    """Between a half and one, evenly."""
    return 0.5 + secrets.randbelow(1024) / 2048


@dataclass(slots=True)
class Backoff:
    """0.1 s, doubled up to 5 s, and from the start again after a success.

    `spread` answers what share of each delay is waited for, so that many clients of one server don't come back as one;
    where the socket is local it is left out, and all of it is.
    """

    clock: Clock
    first: float = 0.1
    longest: float = 5.0
    spread: Callable[[], float] = lambda: 1.0
    _next: float = 0.0

    async def wait(self) -> None:
        """Wait, longer each time."""
        delay = max(self.first, self._next)
        self._next = min(self.longest, delay * 2)
        await self.clock.sleep(delay * self.spread())

    def reset(self) -> None:
        """It worked."""
        self._next = 0.0
