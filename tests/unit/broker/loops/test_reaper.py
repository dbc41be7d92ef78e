"""The reaper: idempotent, batched, and one target's trouble is no other's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from broker.lifecycle.world import World
from broker.loops.reaper import Reaper
from broker.model.lease import LeaseState
from broker.targets.target import open_target
from fakes.target import FakeEngine, FakeTarget
from fakes.world import living, role


async def test_a_tick_twice_is_a_tick_once(tmp_path: Path) -> None:
    """Nothing is done again that was done."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.held(task)
        await house.end(task)
        await house.reap()
        calls, events = list(house.engine.calls), len(await house.events())
        await house.reap()
        assert (house.engine.calls, len(await house.events())) == (calls, events)


async def test_many_leases_of_one_task_drain(tmp_path: Path) -> None:
    """More than a batch takes more than a tick; each wakes the next."""
    async with living(tmp_path) as house:
        task = await house.open()
        for _ in range(250):
            await house.obtain(task)
        await house.end(task)
        await house.reap()
        assert sum(lease.is_closed for lease in await house.leases()) == 200
        await asyncio.wait_for(house.world.reaper.wait(), 60)
        await house.reap()
        assert all(lease.is_closed for lease in await house.leases())
        assert not house.engine.target.principals


async def test_a_target_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """The tick stops waiting for it, ends what is elsewhere, and leaves the hanging one alone until it has finished."""
    async with living(tmp_path) as house, open_target("other", house.clock) as calls:
        other = FakeEngine(FakeTarget(house.clock))
        second = role("other")
        world: World = replace(
            house.world,
            engines={**house.world.engines, "other": other},
            targets={**house.world.targets, "other": calls},
            roles={**house.world.roles, second.full_name: second},
        )
        house.world, reaper = world, Reaper(world)
        task = await house.open()
        stuck, free = await house.held(task), await house.held(task, role=second)
        _, go = house.engine.hold("end_access")
        await house.end(task)
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(reaper.tick(house.clock.now()))
            await house.clock.until(lambda: not other.target.principals)
            await house.clock.until(ticking.done, step=1)
        assert (await house.lease(free.lease.id)).state is LeaseState.REVOKED
        assert (await house.lease(stuck.lease.id)).state is LeaseState.REVOKING
        go.set()
        await house.clock.until(lambda: not house.engine.target.principals)
        await house.clock.advance(30)
        await reaper.tick(house.clock.now())
        assert (await house.lease(stuck.lease.id)).state is LeaseState.REVOKED


async def test_a_target_that_is_no_longer_configured_is_not_forgotten(tmp_path: Path) -> None:
    """Its leases stay open and say why."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        await house.end(task)
        gone = replace(house.world, engines={}, targets={}, roles={})
        await Reaper(gone).tick(house.clock.now())
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.closed_at) == (LeaseState.REVOKING, None)
        assert "not configured" in (lease.trouble or "")
