"""Every reconciler of a broker's process, a row each; the first tick of each is the recovery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

from broker.events.feed import Feed
from broker.loops import gauges, incarnations, rotations, set_back
from broker.loops.claims import Claims
from broker.loops.deadlines import Deadlines
from broker.loops.gauges import Gauges
from broker.loops.identities import Identities
from broker.loops.incarnations import Incarnations
from broker.loops.neighbours import neighbours
from broker.loops.processes import Processes
from broker.loops.reaper import Reaper
from broker.loops.retention import Forgetting
from broker.loops.rotations import Rotations
from broker.loops.set_back import SetBack
from broker.loops.sweep import Sweep
from broker.service.gate import Gate
from broker.service.observing import LinkObserver
from broker.service.operators import KnownOperators
from broker.settings import BrokerSettings
from broker.store import tasks
from ca.runtime.bell import SharedWake
from ca.runtime.metrics import Metrics
from ca.runtime.process import Wake, background, task


@asynccontextmanager
async def reconciling(
    settings: BrokerSettings,
    gate: Gate,
    link: LinkObserver | None,
    lives: Incarnations,
    operators: KnownOperators,
) -> AsyncIterator[Feed]:
    """Run all of them; answers the feed of events."""
    world, clock = gate.world, gate.world.clock
    claims = Claims(exclusive=settings.database.startswith("sqlite:"), patience=settings.dead_after.total_seconds())
    feed, reaper, sweep = Feed(world.database, ended=world.reaper.set), Reaper(world, claims), Sweep(world)
    processes = Processes(world, settings.tasks.observe_grace.total_seconds())
    deadlines, identities, ended = Deadlines(world), Identities(world), Wake()
    forgetting = Forgetting(world, settings.retention.to_retention(), _counted(gate.metrics))
    await feed.tick(clock.now())

    async def watch(now: datetime) -> None:
        if link is not None:
            await processes.tick(now)  # first: an attestor server that does not answer must not hold endings up
            await link.hold(await world.database.read(tasks.live_instances))

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if link is not None:
            await enter(_woken_by(link, ended))
        assert isinstance(world.feed, SharedWake), "given by `_gate`"
        ticks, again = gate.metrics.ticks, lambda: operators.refresh(world.database)
        await enter(neighbours(world, claims, world.feed, again, ticks))
        rows = (
            ("clock", SetBack(world, alone=claims.exclusive).tick, set_back.EVERY, None),
            ("feed", feed.tick, 1.0, world.feed),
            ("reaper", reaper.tick, settings.reap_every.total_seconds(), world.reaper),
            ("deadlines", deadlines.tick, 1.0, None),
            ("sweep", sweep.tick, settings.sweep_every.total_seconds(), None),
            ("processes", watch, 1.0, ended),
            ("identities", identities.tick, 1.0, world.identities),
            ("rotations", Rotations(world).tick, rotations.EVERY, None),
            ("past", lives.tick, incarnations.EVERY, None),
            ("gauges", Gauges(world, gate.metrics).tick, gauges.EVERY, None),
            ("retention", forgetting.tick, settings.retention.every.total_seconds(), None),
        )
        for loop, tick, every, wake in rows:
            count = gate.metrics.ticks(loop)
            await enter(background(loop, tick, every=every, clock=clock, wake=wake, count=count))
        yield feed


def _counted(metrics: Metrics) -> Callable[[str, int], None]:
    return lambda what, many: metrics.count("sojourn_forgotten_total", many, what=what)


@asynccontextmanager
async def _woken_by(link: LinkObserver, ended: Wake) -> AsyncIterator[None]:
    """A change of any instance makes the reconciler of processes run at once."""

    async def follow() -> None:
        async for _ in link.changes():
            ended.set()

    async with task("instances", follow):
        yield
