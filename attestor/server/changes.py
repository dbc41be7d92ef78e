"""Wakes every held stream: something may have changed, or it is time to say that nothing did.

What changed is not said here. Whoever wakes looks at the present state and sends the difference: a wake too many does
no harm, two in a row are one, and none can be lost.

What this server committed may concern streams that other servers over the same store hold: they are told by a bell,
and would find it with their next beat otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ca.runtime.bell import Pull
from ca.runtime.process import Wake


class Changes:
    """One for each server process."""

    def __init__(self) -> None:
        self._wakes: set[Wake] = set()
        self.tell_others: Pull = lambda: None
        """Tells the other servers."""

    @contextmanager
    def following(self) -> Iterator[Wake]:
        """A wake that is set on every change and beat while the block runs; set once at the beginning."""
        wake = Wake()
        wake.set()
        self._wakes.add(wake)
        try:
            yield wake
        finally:
            self._wakes.discard(wake)

    def notify(self) -> None:
        """Something changed; call it after the commit."""
        self.wake()
        self.tell_others()

    def wake(self) -> None:
        """Another server changed something."""
        for wake in self._wakes:
            wake.set()

    async def beat(self, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Time to be heard."""
        self.wake()

    @property
    def followers(self) -> int:
        """How many streams are held."""
        return len(self._wakes)
