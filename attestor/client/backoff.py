"""How long to wait before asking again."""

from __future__ import annotations

from dataclasses import dataclass

from ca.runtime.clock import Clock


@dataclass(slots=True)
class Backoff:
    """0.1 s, doubled up to 5 s, and from the start again after a success. The socket is local: no jitter is needed."""

    clock: Clock
    first: float = 0.1
    longest: float = 5.0
    _next: float = 0.0

    async def wait(self) -> None:
        """Wait, longer each time."""
        delay = max(self.first, self._next)
        self._next = min(self.longest, delay * 2)
        await self.clock.sleep(delay)

    def reset(self) -> None:
        """It worked."""
        self._next = 0.0
