"""Work beside a block, which ends when the block is left, even if it loses the word.

A cancellation can be lost: grpclib makes the error of a broken connection of one that comes as the connection breaks,
and a task group (Python 3.11) drops one that comes as another of its tasks fails. A loop that goes on after an error
would then go on for ever, and whoever left waits for it. So it asks here before it goes on.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

_LEFT: WeakSet[asyncio.Task[Any]] = WeakSet()


def leave(work: asyncio.Task[Any]) -> None:
    """Cancel `work`, and remember that nobody wants it any more."""
    _LEFT.add(work)
    work.cancel()


def still_wanted() -> None:
    """Return if the task this is called in may go on. Raises CancelledError: it was left."""
    task = asyncio.current_task()
    if task is not None and task in _LEFT:
        raise asyncio.CancelledError
