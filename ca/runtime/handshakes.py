"""TLS on a listener of ours: handshakes take turns with everything else, and an idle connection is small.

    server = await loop.create_server(tls(factory, context, patience=10.0), sock=listening)

A handshake costs a signature and the judgement of a chain, a millisecond or two of the loop each time a peer's message
comes. The library does that as soon as the bytes are there, one connection after another, so a thousand peers that come
back at once hold the loop for a second, and an ending that needs twenty turns of it takes twenty (traps 26). Here such
a step waits for its turn: one at a time, those that are half done first, and after each the loop is left to
others for as long as half of it took. What peers that say nothing hold is a place of the `Crowd`, never a turn.

The library also gives each connection 256 KiB to read into, and touches all of it; ten thousand idle streams would take
2.5 GB. What was received is copied on at once, so the connections of a loop read into one and the same 16 KiB, the size
of a TLS record.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from asyncio import sslproto
from collections import deque
from collections.abc import Callable
from typing import Any

READ = 16 * 1024
"""Bytes that are read at once: one TLS record."""

REST = 0.5
"""For how long others have the loop after a step, as a part of what the step took."""


class Turns:
    """Who may do a step of a handshake, one after the other; one for each loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rest: float = REST) -> None:
        self._loop, self._rest = loop, rest
        self._fresh: deque[Tls] = deque()
        self._further: deque[Tls] = deque()
        self._awake = False
        self.buffer = bytearray(READ)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Turns:
        """Those of `loop`, whichever listener asks."""
        if loop not in _TURNS:
            _TURNS[loop] = cls(loop)
        return _TURNS[loop]

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return len(self._fresh) + len(self._further)

    def ask(self, one: Tls, *, begun: bool) -> None:
        """Have `one` called when it is its turn."""
        (self._further if begun else self._fresh).append(one)
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        queue = self._further or self._fresh
        if not queue:
            self._awake = False
            return
        begun = self._loop.time()
        try:
            queue.popleft().step()
        finally:
            self._loop.call_later((self._loop.time() - begun) * self._rest, self._next)


_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()


_Protocol: Any = sslproto.SSLProtocol  # typed for older Pythons only


class Tls(_Protocol):  # type: ignore[misc] # see above
    """The server's end of one connection."""

    max_size = READ

    def __init__(self, app: asyncio.BaseProtocol, context: ssl.SSLContext, patience: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, app, context, None, server_side=True, ssl_handshake_timeout=patience)
        self._turns = Turns.of(loop)
        self._ssl_buffer = self._turns.buffer
        self._ssl_buffer_view = memoryview(self._turns.buffer)
        self._asked = self._begun = False

    def _do_handshake(self) -> None:
        """Called when the connection is there, and for each of the peer's messages."""
        if self._asked or not (self._begun or self._incoming.pending):
            return
        self._asked = True
        self._turns.ask(self, begun=self._begun)

    def step(self) -> None:
        """Its turn: go on as far as the peer's bytes lead."""
        self._asked, self._begun = False, True
        if self._transport is None or self._state is not sslproto.SSLProtocolState.DO_HANDSHAKE:
            return  # it was given up meanwhile
        try:
            super()._do_handshake()
            self._extra.pop("peercert", None)  # a dictionary nobody asks for: whoever wants the peer asks the hook
        except Exception as error:  # noqa: BLE001 - what asyncio does with whatever a message of a peer causes
            self._fatal_error(error, "a TLS handshake failed")


def tls(
    factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext, *, patience: float
) -> Callable[[], asyncio.BaseProtocol]:
    """A factory of connections whose inside is `factory`'s; a handshake that takes longer than `patience` is cut."""
    return lambda: Tls(factory(), context, patience)
