"""Sockets that are being closed: an event loop that ends before they are leaves them to the garbage collector.

TLS takes its leave of the other end before it closes a socket, in the background, and aiohttp forgets a connection it
closes because its request was cancelled. So they are counted where they are made.
"""

from __future__ import annotations

import socket
import weakref
from typing import Any

from ca.runtime.clock import Clock

_LOOKS, _PAUSE = 100, 0.01
"""How often, and after how many seconds each, it is looked at; a broker that says no farewell isn't waited for long."""


class Sockets:
    """Those of one session."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def make(self, where: tuple[Any, ...]) -> socket.socket:
        """One more, as `getaddrinfo` says."""
        family, kind, protocol, *_ = where
        made = socket.socket(family=family, type=kind, proto=protocol)
        self._made.add(made)
        return made

    async def closed(self, clock: Clock) -> None:
        """Return when they are closed, or after a second."""
        for _ in range(_LOOKS):
            if not any(one.fileno() >= 0 for one in self._made):
                return
            await clock.sleep(_PAUSE)
