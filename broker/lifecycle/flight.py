"""Leases a call of this process is just making or replacing: nobody else of us touches them meanwhile.

A call is given up at its target's deadline and its lease let go. One that is still held long after was lost by its
holder: from then on it is looked after like any other, and should its holder come back after all, its next step finds
the lease moved, and undoes what it made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.model.ids import LeaseId
from ca.runtime.clock import Clock

LONGEST = 120.0
"""Seconds of boot time a lease is held at most: a call, its record, and what undoes it."""


@dataclass(slots=True)
class InFlight:
    """Who holds what since when."""

    clock: Clock
    longest: float = LONGEST
    _since: dict[LeaseId, float] = field(default_factory=dict)

    def add(self, lease: LeaseId) -> None:
        """A call begins to work on it."""
        self._since[lease] = self.clock.boot()

    def discard(self, lease: LeaseId) -> None:
        """The call is over."""
        self._since.pop(lease, None)

    def __contains__(self, lease: LeaseId) -> bool:
        since = self._since.get(lease)
        return since is not None and self.clock.boot() - since < self.longest

    def __len__(self) -> int:
        return len(self._since)
