"""A word between the processes over one store: something was committed, look now instead of at your next look.

    async with open_bell(database, "attestor", heard, clock) as pull:
        pull()                              # after a commit that others should see soon

It is a wake and never the truth: a word may be lost, or come twice, so everybody who listens also looks by himself from
time to time. `pull` costs nothing and may be called often: what is said within `PAUSE` is said once, from a connection
of its own and after the commit (traps 28: a NOTIFY inside the transactions takes two thirds of their number). Over
SQLite there is no other process, and nobody hears anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, runtime_checkable

from ca.runtime.clock import Clock
from ca.runtime.database import Database
from ca.runtime.process import Wake

Pull = Callable[[], None]


class SharedWake(Wake):
    """A wake that other processes over the same store hear too; `rung_by` says through which bell."""

    __slots__ = ("_pull",)

    def __init__(self) -> None:
        super().__init__()
        self._pull: Pull | None = None

    def rung_by(self, pull: Pull) -> None:
        """From now on each `set` also rings."""
        self._pull = pull

    def set(self) -> None:
        """Something was committed here."""
        self.heard()
        if self._pull is not None:
            self._pull()

    def heard(self) -> None:
        """Something was committed elsewhere: wake, and tell nobody."""
        super().set()


PAUSE = 0.02
"""Seconds between a `pull` and the word, for further ones to join."""


@runtime_checkable
class Ringing(Protocol):
    """A store that can carry a word to others."""

    def bell(self, name: str, heard: Callable[[], object], clock: Clock) -> AbstractAsyncContextManager[Pull]:
        """See `open_bell`."""


@asynccontextmanager
async def open_bell(database: Database, name: str, heard: Callable[[], object], clock: Clock) -> AsyncIterator[Pull]:
    """While the block runs, call `heard` when another process rings the bell `name`, or may have done so unheard."""
    if not isinstance(database, Ringing):
        yield lambda: None
        return
    async with database.bell(name, heard, clock) as pull:
        yield pull
