"""Something that changes, and whoever waits for the next change."""

from __future__ import annotations

import asyncio


class Change:
    """Take `next()` first, read the state, then wait: a change between the two is not lost."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """What will be set at the next change."""
        return self._event

    def announce(self) -> None:
        """Wake everybody who waits."""
        self._event.set()
        self._event = asyncio.Event()
