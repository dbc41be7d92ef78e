"""The reaper: idempotent, batched, and one target's trouble is no other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from broker.errors import TargetDown
from broker.lifecycle.world import World
from broker.loops.reaper import Reaper
from broker.model.bounds import Bounds
from broker.model.lease import LeaseState
from broker.model.role import Role
from broker.targets.target import open_target
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living, role


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
        await reaper.tick(house.clock.now())
        assert (await house.lease(stuck.lease.id)).state is LeaseState.REVOKED


@asynccontextmanager
async def two_targets(folder: Path, **more: Any) -> AsyncIterator[tuple[House, FakeEngine, Role]]:
    """A broker with another target beside its own: its engine and the role there."""
    async with living(folder, **more) as house, open_target("other", house.clock, bounds=Bounds(rate=10)) as calls:
        other, second = FakeEngine(FakeTarget(house.clock)), role("other")
        house.world = replace(
            house.world,
            engines={**house.world.engines, "other": other},
            targets={**house.world.targets, "other": calls},
            roles={**house.world.roles, second.full_name: second},
        )
        house.reaper = Reaper(house.world)
        yield house, other, second


def looks(seconds: float) -> int:
    """How often a canary goes in so long a time: after half a second, and after pauses that grow to fifteen."""
    pause, at, count = 0.5, 0.5, 0
    while at <= seconds:
        pause, count = min(15.0, pause * 2), count + 1
        at += pause
    return count


@pytest.mark.parametrize("how", ["black hole", "refused"])
async def test_a_dead_target_delays_no_other(tmp_path: Path, how: str) -> None:
    """Five hundred endings that can't be made; each step of the other target takes as many ticks as alone: one."""
    async with two_targets(tmp_path) as (house, other, second):
        task = await house.open()
        for _ in range(500):
            await house.obtain(task, role=second)
        if how == "refused":
            other.fail("end_access", error=TargetDown("nobody is there"), times=10_000)
        gates = [other.hold("end_access") for _ in range(10_000)] if how == "black hole" else []
        pace = 0.0002 if gates else 0.002  # who waits a quarter of a second waits for a store on a disk that is real
        await house.end(task)
        alone, begun = [], house.clock.boot()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                quick = await house.open()
                handed = await house.held(quick)
                await house.end(quick)
                ticking = group.create_task(house.reap())
                await house.clock.until(ticking.done, step=pace)
                alone.append((await house.lease(handed.lease.id)).state)
                await house.clock.advance(3)
            assert alone == [LeaseState.REVOKED] * 20
            tried, passed = [verb for verb, _ in other.calls].count("end_access"), house.clock.boot() - begun
            on_their_way = 16  # before the first of them was refused
            assert tried <= on_their_way + looks(passed), "a dead target is asked by a canary only"
            untouched = [one for one in await house.leases() if one.role == second.full_name and not one.attempts]
            assert len(untouched) > 400, "what waits for a dead target costs no record"
            for _, go in gates:
                go.set()
            other._held.clear()
            await house.clock.settle()


async def test_after_an_outage_one_goes_to_look_and_the_backlog_drains_at_a_rate(tmp_path: Path) -> None:
    """One canary; then ten endings a second, and one that ended meanwhile is among the first of them."""
    async with two_targets(tmp_path) as (house, other, second):
        task = await house.open()
        for _ in range(100):
            await house.obtain(task, role=second)
        other.fail("end_access", error=TargetDown("nobody is there"), times=1000)
        await house.end(task)
        for _ in range(3):
            await house.reap()
            await house.clock.advance(0.1)
        assert [verb for verb, _ in other.calls].count("end_access") <= 16
        other._cues.clear()
        await house.clock.advance(20)
        await house.reap()
        assert len(other.target.principals) == 99, "the canary"
        left = []
        for _ in range(14):
            await house.reap()
            await house.reap()
            left.append(len(other.target.principals))
            await house.clock.advance(1)
        assert left[-1] == 0
        assert all(before - after <= 11 for before, after in pairwise([99, *left])), left


async def test_while_a_target_is_down_ends_are_decided_and_renewals_cost_little(tmp_path: Path) -> None:
    """What was never acknowledged is revoking, and says so, though nobody could be told; what lives on waits."""
    async with two_targets(tmp_path) as (house, other, second):
        task = await house.open()
        unheard, kept = await house.obtain(task, role=second), await house.held(task, role=second)
        other.fail("renew", times=10_000)
        other.fail("end_access", times=10_000)
        other.fail("create")
        with pytest.raises(TargetDown):
            await house.obtain(task, role=second)
        for _ in range(40):
            await house.clock.advance(1)
            await house.reap()
        assert (await house.lease(unheard.lease.id)).state is LeaseState.REVOKING
        versions = (await house.lease(kept.lease.id)).version
        for _ in range(45):
            await house.clock.advance(1)
            await house.reap()
        lease = await house.lease(kept.lease.id)
        assert lease.state is LeaseState.ACTIVE
        assert lease.version - versions < 12


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
