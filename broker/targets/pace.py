"""After an outage a backlog is drained at a rate its target can bear, not all at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """So many endings a second, from when a target is back until its backlog is gone; times are boot times."""

    rate: float
    _since: float | None = None
    _spent: int = 0

    @property
    def is_held(self) -> bool:
        """Whether a backlog is being drained."""
        return self._since is not None

    def hold(self, boot: float) -> None:
        """The target is back."""
        self._since, self._spent = boot, 0

    def room(self, boot: float, most: int) -> int:
        """How many endings may begin now, of `most`: what a second allows at once, and more as time goes on."""
        if self._since is None:
            return most
        allowed = (boot - self._since + 1.0) * self.rate - self._spent
        return max(0, min(most, int(allowed)))

    def spend(self, begun: int, room: int) -> None:
        """So many of `room` were begun; fewer than that: the backlog is gone."""
        self._spent += begun
        if begun < room:
            self._since = None
