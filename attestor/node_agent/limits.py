"""How many connections the Workload API holds: no user may take the descriptors everything else lives on.

A connection costs a descriptor and a new process another one. What is over the limit is refused with a sentence, as
`Unavailable`, which every client of the standard answers by trying again later; streams that are held stay, and so does
the operators' socket. One user alone gets no more than half.
"""

from __future__ import annotations

import resource
from asyncio import Transport
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from ca.errors import Unavailable
from ca.runtime import log
from ca.runtime.crowd import RESERVE
from ca.runtime.grpc import Connection
from ca.runtime.unix_socket import credentials

REFUSED = 32
"""Connections over the limit that are held to hear why; for one more the oldest of them is dropped."""

_log = log.get(__name__)


class Overloaded(Unavailable):
    """The limit of connections is reached."""

    code = "overloaded"


@dataclass(slots=True, eq=False)
class Place:
    """A connection's place; one that is `refused` is only held to hear why, and let in when there is room."""

    uid: int
    transport: Transport
    limit: ConnectionLimit
    refused: bool = False

    def check(self) -> None:
        """Raise Overloaded when this connection has no place, and still gets none."""
        if self.refused:
            self.limit.let_in(self)


class ConnectionLimit:
    """Counts the connections of a listener; `accept` and `release` are its options."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: Counter[int] = Counter()
        self._refused: deque[Place] = deque()

    def accept(self, connection: Connection) -> Place:
        """Give one more connection its place, by the user who connected."""
        place = Place(credentials(connection.socket).uid, connection.transport, self)
        try:
            self.let_in(place)
        except Overloaded as refusal:
            _log.warning("a connection is over the limit", uid=place.uid, reason=str(refusal))
            place.refused = True
            self._refused.append(place)
            if len(self._refused) > REFUSED:
                self._refused.popleft().transport.abort()
        return place

    def let_in(self, place: Place) -> None:
        """Count `place` among those that are held. Raises Overloaded."""
        if self._held.total() >= self.most:
            raise Overloaded(f"this node agent holds {self.most} connections and takes no more at the moment")
        held = self._held[place.uid]
        if held >= max(1, self.most // 2):
            raise Overloaded(f"the user {place.uid} holds {held} connections and gets no more at the moment")
        self._held[place.uid] += 1
        if place.refused:
            place.refused = False
            self._forget(place)

    def release(self, place: Place) -> None:
        """One has gone."""
        if place.refused:
            self._forget(place)
            return
        self._held[place.uid] -= 1
        if not self._held[place.uid]:
            del self._held[place.uid]

    def _forget(self, place: Place) -> None:
        with suppress(ValueError):  # it was dropped for a newer one
            self._refused.remove(place)


def affordable(connections: int, processes: int) -> tuple[int, int]:
    """As many connections and processes as asked for, or as descriptors allow; raises the limit as far as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = max(2, hard - RESERVE) if hard != resource.RLIM_INFINITY else connections + processes
    if connections + processes <= room:
        return connections, processes
    _log.warning("fewer connections than settings ask for", descriptors=hard, asked=connections + processes)
    share = room / (connections + processes)
    return max(1, int(connections * share)), max(1, int(processes * share))
