"""How many connections a listener holds, from the moment they are accepted: during a handshake, and after it.

    crowd = Crowd(4096, metrics=metrics)
    async with listening_at(host, port, crowd, factory, ssl=context) as (host, port): ...

A connection costs a descriptor and, over TLS, a handshake's memory before anybody has shown who it is. Over the limit
the newest is closed at once; those that are held stay. One caller alone gets no more than half: on a network that is an
address (of IPv6 a /64), on a Unix socket a user. A place is free again when its socket is closed, whatever closed it.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl as tls
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ca.errors import Conflict, Problem
from ca.runtime import log
from ca.runtime.handshakes import tls as tls_of
from ca.runtime.metrics import Metrics
from ca.runtime.rate import network_of
from ca.runtime.unix_socket import BACKLOG, credentials

MOST = 4096
"""Connections of one listener, unless settings say otherwise."""

OPERATORS = 128
"""Connections of an operators' socket."""

RESERVE = 192
"""Descriptors that are left for stores, logs, targets and operators."""

_ABORT_AT_ONCE = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, zero seconds
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""An address of a name that this machine doesn't have, such as one of IPv6."""
_log = log.get(__name__)

CallerOf = Callable[[socket.socket, Any], Hashable]
Factory = Callable[[], asyncio.BaseProtocol]


def caller_of(accepted: socket.socket, address: Any) -> Hashable:
    """Who connects: a user, or as far as an address tells. Raises Unauthenticated."""
    return credentials(accepted).uid if accepted.family == socket.AF_UNIX else network_of(address[0])


class Crowd:
    """The places of one listener.

    `most` is lowered to what descriptors allow, shared by `listeners` of this process. `caller_of` tells callers apart,
    each of whom gets `share` of it at most.
    """

    def __init__(
        self,
        most: int = MOST,
        *,
        listeners: int = 1,
        caller_of: CallerOf = caller_of,
        share: float = 0.5,
        metrics: Metrics | None = None,
    ) -> None:
        self.most = affordable(most, listeners)
        self.caller_of = caller_of
        self._each = max(1, int(self.most * share))
        self._metrics = metrics
        self._held: Counter[Hashable] = Counter()
        self._full = False

    @property
    def held(self) -> int:
        """How many places are taken."""
        return self._held.total()

    def take(self, caller: Hashable) -> bool:
        """One more connection of `caller`; False when it gets no place."""
        if self.held >= self.most:
            return self._refuse("full")
        if self._held[caller] >= self._each:
            return self._refuse("one-caller")
        self._held[caller] += 1
        self._full = False
        return True

    def leave(self, caller: Hashable) -> None:
        """One of its connections is closed."""
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]

    def _refuse(self, reason: str) -> bool:
        if not self._full:  # once, not for each: whoever knocks fills no log
            _log.warning("connections are refused: so many are held", held=self.held, most=self.most, reason=reason)
        self._full = True
        if self._metrics is not None:
            self._metrics.count("sojourn_connections_refused_total", reason=reason)
        return False


def affordable(most: int, listeners: int = 1) -> int:
    """As many connections as asked for, or as the limit of open files allows each of `listeners`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(2, min(most, (soft - RESERVE) // listeners))


class _Accepted(socket.socket):
    """A connection that has a place until it is closed."""

    place: weakref.finalize[..., Any]

    def close(self) -> None:
        """Close it, and give the place back."""
        super().close()
        self.place()


class _Gate(socket.socket):
    """A listening socket that gives away places."""

    crowd: Crowd

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that gets a place. Raises ConnectionAbortedError for one that gets none."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        accepted = _Accepted(self.family, self.type, self.proto, fileno=descriptor)
        try:
            caller = self.crowd.caller_of(accepted, address)
            admitted = self.crowd.take(caller)
        except Problem as problem:
            socket.socket.close(accepted)
            raise ConnectionAbortedError(errno.ECONNABORTED, str(problem)) from problem
        if not admitted:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_AT_ONCE)
            socket.socket.close(accepted)
            raise ConnectionAbortedError(errno.ECONNABORTED, "so many connections are held")
        accepted.place = weakref.finalize(accepted, self.crowd.leave, caller)
        accepted.place.atexit = False
        return accepted, address


@asynccontextmanager
async def listening_at(
    host: str, port: int, crowd: Crowd, factory: Factory, *, ssl: tls.SSLContext | None = None, handshake: float
) -> AsyncIterator[tuple[str, int]]:
    """Accept at every address of `host`, at `port` (0: a free one); yields the first. Raises Conflict."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    gates = _bound(list(dict.fromkeys((family, address) for family, *_, address in found)), crowd)
    address = gates[0].getsockname()
    async with _accepting(gates, factory, ssl, handshake):
        yield address[0], address[1]


@asynccontextmanager
async def listening_on(
    listener: socket.socket, crowd: Crowd, factory: Factory, *, ssl: tls.SSLContext | None = None, handshake: float
) -> AsyncIterator[None]:
    """Accept on a Unix socket that listens already; it is taken over, and closed."""
    gate = _Gate(listener.family, listener.type, listener.proto, fileno=listener.detach())
    gate.crowd = crowd
    gate.setblocking(False)
    async with _accepting([gate], factory, ssl, handshake):
        yield


@asynccontextmanager
async def _accepting(
    gates: Iterable[_Gate], factory: Factory, ssl: tls.SSLContext | None, handshake: float
) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    made = factory if ssl is None else tls_of(factory, ssl, patience=handshake)
    async with AsyncExitStack() as stack:
        for gate in gates:
            server = await loop.create_server(made, sock=gate, backlog=BACKLOG)
            stack.callback(server.close)
        yield


def _bound(addresses: Sequence[tuple[int, Any]], crowd: Crowd) -> list[_Gate]:
    """A gate for each address this machine has. Raises Conflict when one is taken, or this machine has none."""
    gates: list[_Gate] = []
    try:
        for family, address in addresses:
            try:
                gates.append(_gate(family, address, crowd))
            except OSError as error:
                last = address == addresses[-1][1] and not gates
                if last or error.errno not in _NOT_HERE:
                    reason = (error.strerror or "unknown reason").lower()
                    raise Conflict(f"can't listen at `{address[0]}:{address[1]}`: {reason}") from error
    except Conflict:
        for gate in gates:
            gate.close()
        raise
    return gates


def _gate(family: int, address: Any, crowd: Crowd) -> _Gate:
    gate = _Gate(family, socket.SOCK_STREAM)
    try:
        gate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if gate.family == socket.AF_INET6:
            gate.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        gate.setblocking(False)
        gate.bind(address)
    except OSError:
        gate.close()
        raise
    gate.crowd = crowd
    return gate
