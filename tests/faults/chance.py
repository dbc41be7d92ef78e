"""Lives whose end is drawn by chance; whoever lives next goes on in the same world.

chance      recover as any broker does, and stop to be looked at; then arm what is to kill, and let the load loose
closing     let a minute pass and end everything
everyday    one thing after the other, whatever is refused meanwhile

When the point a broker was to die at does not come by, it dies at the next one that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from random import Random  # noqa: TID251 - seeded: the same seed is the same load

from broker.lifecycle.obtain import HandOver
from broker.model.task import TaskEvent
from broker.service import leases, tasks
from ca.errors import Problem
from ca.runtime import failpoint
from ca.runtime.process import background
from faults.agent import asked, end, obtain, open_task, take
from faults.broker_process import Broker
from faults.load import Load
from faults.stories import finish, narrow, settle
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
    """Nothing may be left; where a name is held for a while after its access ended, the sweep after gives it back."""
    await broker.recover()
    await settle(broker)
    await finish(broker)
    if broker.case.lingers:
        await settle(broker)


async def everyday(broker: Broker) -> None:
    """A life in which every step may be refused: whoever lives it may have been taken for dead in the middle."""
    task = await open_task(broker)
    held: dict[str, HandOver] = {}

    async def ask(name: str, key: str | None = None) -> None:
        held[name] = await obtain(broker, task, key=key)

    async def narrowed() -> None:
        await tasks.change(broker.gate, asked(broker), task.id, TaskEvent.NARROW, narrow(task))

    steps: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: ask("a", "k"),
        lambda: ask("a", "k"),
        lambda: take(broker, held["a"]),
        lambda: ask("b"),
        lambda: take(broker, held["b"]),
        lambda: ask("c"),  # never acknowledged
        broker.tick,
        lambda: leases.renew(broker.gate, asked(broker), held["a"].lease.id),
        narrowed,
        broker.tick,
        lambda: leases.give_back(broker.gate, asked(broker), held["b"].lease.id),
        broker.tick,
        lambda: end(broker, task),
        broker.tick,
        broker.sweep_once,
    )
    for step in steps:
        broker.clock.leap(4)
        with suppress(Problem, KeyError):
            await step()


CHANCE: dict[str, Callable[[Broker], Awaitable[None]]] = {
    "chance": chance, "closing": closing, "everyday": everyday,
}  # fmt: skip
