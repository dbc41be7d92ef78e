"""Renewal is invisible while all is well, and stops at the first doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotPossible, OutcomeUnknown, TargetDown
from broker.lifecycle.renew import renew
from broker.model.ids import InstanceId
from broker.model.lease import CloseReason, LeaseState
from broker.model.observed import Observation
from broker.model.task import TaskState
from broker.store import tasks
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import in_both_ways  # noqa: F401 - a fixture
from fakes.world import living, role

pytestmark = pytest.mark.usefixtures("in_both_ways", "on_every_store")

WHO = InstanceId("0" * 32)


async def test_half_of_the_window_moves_the_end_ahead(tmp_path: Path) -> None:
    """Nobody asks; the end at the target and in the store move by the window."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        await house.clock.advance(59)
        await house.reap()
        assert (await house.lease(handed.lease.id)).until == handed.lease.until
        await house.clock.advance(2)
        await house.reap()
        lease = await house.lease(handed.lease.id)
        assert lease.until == house.clock.now() + timedelta(minutes=2)
        assert house.engine.target.principals[lease.handle.name].until == lease.until


async def test_a_lease_never_outlives_its_last_moment(tmp_path: Path) -> None:
    """Renewal stops at `last`; then the lease is revoked because it ran out."""
    async with living(tmp_path, the_role=role(longest=timedelta(minutes=5))) as house:
        handed = await house.held(await house.open())
        for _ in range(40):
            await house.clock.advance(10)
            await house.reap()
            found = house.engine.target.principals.get(handed.lease.handle.name)
            assert found is None or found.until <= handed.lease.last
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)
        assert lease.closed_at is not None
        assert lease.closed_at <= handed.lease.last + timedelta(seconds=10)


@pytest.mark.parametrize("state", [Observation.UNOBSERVED, Observation.UNKNOWN, Observation.ENDED])
async def test_an_instance_that_is_not_seen_is_not_renewed(tmp_path: Path, state: Observation) -> None:
    """Unless the process is seen to live its lease runs out."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open(instance=WHO))
        house.observer.states[WHO] = state
        for _ in range(13):
            await house.clock.advance(10)
            await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.until, lease.close_reason) == (handed.lease.until, CloseReason.RAN_OUT)


async def test_a_silent_task_is_not_renewed(tmp_path: Path) -> None:
    """Three missed beats stop renewals, even before anybody wrote the task's end."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open(heartbeat=timedelta(seconds=10)))
        await house.clock.advance(61)
        await house.reap()
        assert (await house.lease(handed.lease.id)).until == handed.lease.until


async def test_a_broken_clock_renews_nothing_and_a_mended_one_does(tmp_path: Path) -> None:
    """While wall and boot time disagree nothing is prolonged."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        house.clock.step_wall(timedelta(seconds=30))
        await house.clock.advance(59)
        await house.reap()
        assert (await house.lease(handed.lease.id)).until == handed.lease.until


@pytest.mark.parametrize("error", [TargetDown("nobody is there"), OutcomeUnknown("no answer came")])
async def test_a_target_that_does_not_answer_is_asked_again_before_the_end(tmp_path: Path, error: Exception) -> None:
    """A failed renewal is repeated while there is time."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        house.engine.fail("renew", error=error)
        for _ in range(10):
            await house.clock.advance(10)
            await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.trouble) == (LeaseState.ACTIVE, None)
        assert house.engine.target.principals[lease.handle.name].until == lease.until > handed.lease.until


async def test_a_principal_that_somebody_removed_closes_its_lease(tmp_path: Path) -> None:
    """The record does not go on claiming what is not there."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        house.engine.target.principals.clear()
        await house.clock.advance(61)
        await house.reap()
        await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)


async def test_a_narrowed_task_keeps_what_is_inside_and_loses_the_rest(tmp_path: Path) -> None:
    """Leases inside the new scope are re-stamped, the others revoked."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        waiting = replace(task, state=TaskState.WAITING, version=2)
        await house.world.database.write(lambda tx: tasks.update(tx, waiting, 1))
        await house.reap()
        assert (await house.lease(handed.lease.id)).task_version == 2
        narrowed = replace(waiting, version=3, scope=replace(task.scope, roles=frozenset()))
        await house.world.database.write(lambda tx: tasks.update(tx, narrowed, 2))
        await house.reap()
        assert (await house.lease(handed.lease.id)).close_reason is CloseReason.NARROWED
        assert not house.engine.target.principals


async def test_an_end_that_is_written_into_the_secret_is_not_moved(tmp_path: Path) -> None:
    """Neither the target is asked nor the record changed."""
    async with living(tmp_path) as house:
        house.engine.fixed = True
        handed = await house.held(await house.open())
        before = await house.lease(handed.lease.id)
        with pytest.raises(NotPossible, match="ask for another one"):
            await renew(house.world, before, house.clock.now())
        assert await house.lease(handed.lease.id) == before
        assert ("renew", before.handle.name) not in house.engine.calls
