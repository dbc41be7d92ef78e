"""What a broker does because it is not alone over its store: it beats, listens, and reads again what others change.

Nothing here is needed for anything to be right, only for it to be soon: whoever hears nothing looks by himself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from broker.lifecycle.world import World
from broker.loops.claims import BEAT, Claims
from broker.store import events
from ca.errors import Problem
from ca.runtime import log
from ca.runtime.bell import SharedWake, open_bell
from ca.runtime.process import Wake, background

_log = log.get(__name__)

BELL = "broker"

Read = Callable[[], Awaitable[None]]
"""Read again what another broker may have changed."""

Count = Callable[[str], Callable[[str], None]]


@asynccontextmanager
async def neighbours(
    world: World, claims: Claims, feed: SharedWake, operators: Read, count: Count
) -> AsyncIterator[None]:
    """While the block runs this broker is one of several; alone over its store it does nothing.

    It dies when another one begins another incarnation of the store.

    Raises:
        Unavailable: the store takes no first beat.
    """
    if claims.exclusive:
        yield
        return
    others = Wake()

    def heard() -> None:
        feed.heard()
        others.set()

    async def beat(_now: datetime) -> None:
        await claims.tick(world)
        life = await world.database.read(events.incarnation)
        if life != world.installation.incarnation:  # said of a store that was restored, at another broker
            raise RuntimeError(f"the store is another incarnation, `{life}`: what this broker remembers is void")

    async def read(_now: datetime) -> None:
        await operators()

    clock = world.clock
    await claims.tick(world)  # before anything is intended here: one that never beat counts for nothing
    async with (
        background("brokers", beat, every=BEAT, clock=clock, count=count("brokers")),
        background("operators", read, every=BEAT, clock=clock, wake=others, count=count("operators")),
        open_bell(world.database, BELL, heard, clock) as pull,
    ):
        feed.rung_by(pull)
        yield
    try:
        await claims.leave(world)
    except Problem as problem:
        _log.warning("the others were not told that this broker stops", error=problem)
