"""While a target is down one call at a time goes to look; everybody else is told at once."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST, _LONGEST = 0.5, 15.0
"""Seconds between two looks at a target that is down: doubled from the first to the longest."""


@dataclass(slots=True)
class Breaker:
    """What one target's last calls said; times are boot times of the process."""

    _pause: float = 0.0
    _again_at: float = 0.0
    _looking: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the target is taken to be down."""
        return self._pause > 0.0

    def admit(self, boot: float) -> bool:
        """Whether a call may go now; while the target is down, one that may is the canary."""
        if not self.is_open:
            return True
        if self._looking or boot < self._again_at:
            return False
        self._looking = True
        return True

    def may_look(self, boot: float) -> bool:
        """Whether the next call would be the canary."""
        return self.is_open and not self._looking and boot >= self._again_at

    def answered(self) -> None:
        """A call was answered, with whatever: the target is up."""
        self._pause, self._again_at, self._looking = 0.0, 0.0, False

    def failed(self, boot: float) -> None:
        """A call was not answered."""
        if self.is_open and not self._looking:
            return  # an older call; the canary decides
        self._pause = min(_LONGEST, self._pause * 2 or _FIRST)
        self._again_at, self._looking = boot + self._pause, False

    def retry_in(self, boot: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._again_at - boot)
