"""Lives whose end is drawn by chance; whoever lives next goes on in the same world.

chance      recover as any broker does, and stop to be looked at; then arm what is to kill, and let the load loose
closing     let a minute pass and end everything

When the point a broker was to die at does not come by, it dies at the next one that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random  # noqa: TID251 - seeded: the same seed is the same load

from ca.runtime import failpoint
from ca.runtime.process import background
from faults.broker_process import Broker
from faults.load import Load
from faults.stories import finish, settle
from house.failpoints import all_points

SETTLED = "story.settled"
STEPS = 12
"""Before everything is armed, and again after; shared by the agents."""


async def chance(broker: Broker) -> None:
    """One life; it ends by a signal, or was not long enough."""
    await broker.recover()
    failpoint.reach(SETTLED)
    luck = Random(broker.case.seed)
    agents = luck.choice((1, 2, 3))
    aim = broker.case.later or broker.case.points
    if broker.case.later:
        failpoint.arm(broker.case.later, marker=broker.case.marker)
    load = Load(broker, luck, aim.rpartition(",")[2], alone=agents == 1 and not broker.case.losing)
    async with AsyncExitStack() as stack:
        for name, tick in broker.loops().items():
            wake = broker.world.reaper if name == "reaper" else None
            await stack.enter_async_context(background(name, tick, every=0.03, clock=broker.clock, wake=wake))
        await _loose(load, agents)
        everything = ",".join(f"{point}=kill" for point in all_points())
        failpoint.arm(everything, marker=broker.case.marker)
        await _loose(load, agents)


async def _loose(load: Load, agents: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(agents):
            group.create_task(load.agent(STEPS // agents))


async def closing(broker: Broker) -> None:
    """Nothing may be left."""
    await broker.recover()
    await settle(broker)
    await finish(broker)


CHANCE: dict[str, Callable[[Broker], Awaitable[None]]] = {"chance": chance, "closing": closing}
