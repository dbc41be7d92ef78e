"""The end of a principal: no password, no permission, no connection; then no user.

Connections are found by the server's own tracking of who is connected (`/api/connections/username/…`), not by its
statistics, which are up to five seconds late. A connection that has authenticated and has not opened its virtual host
yet is in neither: it is refused when it does, because permissions are read then. One that was let in just before them
appears a moment later, so two looks in a row, apart, must find nothing.
"""

from __future__ import annotations

from broker.engines.protocol import AccessEnded
from broker.engines.rabbitmq import principal
from broker.engines.rabbitmq.reach import Reach
from broker.errors import NotYet
from ca.errors import NotFound
from ca.runtime.clock import Clock

_APART = 0.05
"""Seconds between two looks, at least."""

_PATIENCE = 6.0
"""Seconds after which an ending is reported as not yet verified, to be tried again."""


async def end_access(reach: Reach, clock: Clock, name: str) -> AccessEnded:
    """Shut, cut, and look on every node. Raises NotYet, TargetDown, OutcomeUnknown: it is not verified."""
    await shut(reach, name)
    count = await cut(reach, clock, name)
    try:
        if await principal.has_password(reach, name) or await principal.permitted(reach, name):
            raise NotYet("a call that was under way opened the principal again")
    except NotFound:
        pass  # somebody cleaned up already
    return AccessEnded(sessions_cut=count, endpoints=await nodes(reach))


async def clean_up(reach: Reach, clock: Clock, name: str) -> None:
    """Remove it with everything it was permitted; whoever came in meanwhile is cut. Absent is success."""
    await reach.delete("users", name)
    await cut(reach, clock, name)


async def shut(reach: Reach, name: str) -> None:
    """Let nothing open it any more; absent is nothing to do."""
    if not await principal.is_there(reach, name):
        return
    await principal.put_user(reach, name, None)
    try:
        for vhost in await principal.permitted(reach, name):
            await reach.delete("permissions", vhost, name)
    except NotFound:
        return  # somebody cleaned up meanwhile


async def cut(reach: Reach, clock: Clock, name: str) -> int:
    """Close every connection of `name`, until two looks in a row find none; how many. Raises NotYet, TargetDown."""
    started, empty, seen = clock.boot(), 0, set[str]()
    while True:
        found = await connections(reach, name)
        seen |= found
        if found:
            empty = 0
            await reach.delete("connections", "username", name)
        elif (empty := empty + 1) == 2:
            return len(seen)
        if clock.boot() - started >= _PATIENCE:
            raise NotYet(f"{len(found)} connections could not be closed yet")
        await clock.sleep(_APART)


async def connections(reach: Reach, name: str) -> set[str]:
    """Those a user has open, wherever in the cluster. Raises TargetDown, Unavailable."""
    answer = await reach.get("connections", "username", name, query="columns=name,node")
    return {f"{row.text('name')} at {row.text('node')}" for row in answer.rows()}


async def nodes(reach: Reach) -> int:
    """How many nodes were asked. Raises NotYet: one is cut off, and may serve whoever is connected there.

    Whether a node runs is known at once; `partitions` is told by its statistics, some seconds after its start.
    """
    rows = (await reach.get("nodes", query="columns=name,running,partitions")).rows()
    away = sorted(row.text("name") for row in rows if not row.yes("running") or row.texts("partitions"))
    if away:
        raise NotYet(f"the node `{away[0]}` of the cluster is not to be seen: start it, or have it forgotten")
    return len(rows)
