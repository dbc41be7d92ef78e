"""Renewal is invisible while all is well, and stops at the first doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import ClockUntrusted, Fenced, NotPossible, OutcomeUnknown, TargetDown
from broker.lifecycle import end_task
from broker.lifecycle.renew import renew
from broker.model.ids import InstanceId
from broker.model.lease import CloseReason, LeaseState
from broker.model.observed import Observation, Unobserving
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason, TaskState
from broker.store import tasks
from ca.errors import Stale
from fakes.filling import Filling
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import in_both_ways  # noqa: F401 - a fixture
from fakes.world import AGENT, living, role

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


async def test_a_renewal_stands_on_the_decision_it_was_asked_with(tmp_path: Path) -> None:
    """Policies that changed since void it; one that holds is written with it, in its caller's name."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        lease = await house.lease(handed.lease.id)
        with pytest.raises(Stale):
            await renew(house.world, lease, house.clock.now(), permit=house.permit(task, policy="older"))
        assert await house.lease(lease.id) == lease
        before = len(await house.receipts())
        permit = house.permit(task)
        await house.clock.advance(5)
        renewed = await renew(house.world, lease, house.clock.now(), permit=permit)
        assert renewed.until == house.clock.now() + house.role.ttl
        said = [entry.receipt for entry in (await house.receipts())[before:]]
        assert [(one.kind, one.actor) for one in said] == [
            (ReceiptKind.DECIDED, str(AGENT)),
            (ReceiptKind.LEASE_RENEWED, str(AGENT)),
        ]
        assert said[0].body["decision"] == permit.decision.id


async def test_a_broken_clock_is_told_to_whoever_asks(tmp_path: Path) -> None:
    """Neither the record nor the target is touched."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        lease = await house.lease(handed.lease.id)
        house.clock.step_wall(timedelta(seconds=30))
        with pytest.raises(ClockUntrusted):
            await renew(house.world, lease, house.clock.now())
        assert (await house.lease(lease.id), ("renew", lease.handle.name) in house.engine.calls) == (lease, False)


async def test_each_process_of_the_chain_must_be_seen_and_a_task_of_none_need_not(tmp_path: Path) -> None:
    """Where nobody tells of instances a task without one is renewed; one unseen process above is enough to stop it."""
    async with living(tmp_path) as house:
        unwatched = replace(house.world, observer=Unobserving())
        free = await house.held(await house.open())
        await renew(unwatched, await house.lease(free.lease.id), house.clock.now())
        child = await house.open(await house.open(instance=WHO))
        handed = await house.held(child)
        house.observer.states[WHO] = Observation.UNOBSERVED
        with pytest.raises(Fenced):
            await renew(house.world, await house.lease(handed.lease.id), house.clock.now())


async def test_a_task_whose_end_could_not_be_written_is_not_renewed(tmp_path: Path) -> None:
    """It ended, whatever its row says."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        now = house.clock.now()
        house.world.unrecorded[task.id] = end_task.because(house.world, task.id, EndReason.SAID_SO, now)
        with pytest.raises(Fenced):
            await renew(house.world, await house.lease(handed.lease.id), now)


async def test_what_the_target_was_not_told_is_told_again_soon(tmp_path: Path) -> None:
    """The end stands in the record already: it is repeated within a moment, says why, and a full disk is no excuse."""
    async with living(tmp_path, wrap=Filling) as house:
        handed = await house.held(await house.open())
        store: Any = house.world.database.inner  # type: ignore[attr-defined]

        async def refusing(*_: object) -> None:
            store.full = True
            raise OutcomeUnknown("no answer came")

        house.engine.renew = refusing
        with pytest.raises(OutcomeUnknown):
            await renew(house.world, await house.lease(handed.lease.id), house.clock.now())
        lease = await house.lease(handed.lease.id)
        assert (lease.attempts, lease.trouble) == (1, "no answer came")
        assert lease.due_at == house.clock.now() + timedelta(milliseconds=250)


async def test_a_principal_that_is_gone_ends_its_lease_at_once_and_says_so(tmp_path: Path) -> None:
    """Whoever renewed hears that it is over."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        house.engine.target.principals.clear()
        ending = await renew(house.world, await house.lease(handed.lease.id), house.clock.now())
        assert (ending.state, ending.close_reason) == (LeaseState.REVOKING, CloseReason.RAN_OUT)
        assert ending.trouble == "the principal was removed at the target"
        assert await house.lease(handed.lease.id) == ending
