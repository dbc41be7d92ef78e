"""Whether what proved a node is still so: a machine that left its cluster, or a job that is long over, is sent away.

A node renews its SVID without proving itself anew, so without this a machine that was taken out of its cluster would
stay a node for ever, and would speak for the pods of its successor of the same name. It is evicted: its instances end,
and whoever can still prove to be that node may come back at once. An API that does not answer sends nobody away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from attestor.server.admission import Admission
from attestor.server.store import nodes
from attestor.server.store.nodes import Node, NodeState
from ca.errors import NotFound, Problem
from ca.runtime import log
from ca.runtime.database import Database

EVERY = timedelta(minutes=5)
"""How often each node is looked at."""
AT_ONCE = 50
"""Nodes looked at in one tick: a large cluster is not asked about all of them in one moment."""

Check = Callable[[Node, datetime], Awaitable[str]]
"""Why the node is no longer what it proved to be; empty when it is. Raises Unavailable."""

_log = log.get(__name__)


class NodeChecks:
    """By method; a method that has none is believed for as long as its node renews."""

    def __init__(self, database: Database, admission: Admission, checks: Mapping[str, Check]) -> None:
        self._database, self._admission, self._checks = database, admission, checks
        self._looked: dict[tuple[str, str], datetime] = {}

    async def tick(self, now: datetime) -> None:
        """Look at those that are due."""
        found = [one for one in await self._database.read(nodes.admitted) if one.method in self._checks]
        before = self._looked
        self._looked = {_of(one): before.get(_of(one), one.admitted_at) for one in found}
        due = sorted(
            (one for one in found if now - self._looked[_of(one)] >= EVERY),
            key=lambda one: self._looked[_of(one)],
        )
        for node in due[:AT_ONCE]:
            self._looked[_of(node)] = now
            await self._look(node, now)

    async def _look(self, node: Node, now: datetime) -> None:
        try:
            reason = await self._checks[node.method](node, now)
        except Problem as problem:
            _log.warning("can't tell whether a node is still what it was", node=node.id, error=problem)
            return
        if not reason:
            return
        _log.warning("a node is no longer what it proved to be", node=node.id, reason=reason)
        try:
            await self._admission.send_away(node.id, NodeState.EVICTED, now)
        except NotFound as problem:
            _log.warning("a node went away meanwhile", node=node.id, error=problem)


def _of(node: Node) -> tuple[str, str]:
    """An admission of a node: a new one was looked at when it began."""
    return node.id, node.admission
