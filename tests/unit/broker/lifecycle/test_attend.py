"""What one lease needs at a moment: the boundary of each, what a quarantine lets be, and what waits for a target."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import OutcomeUnknown, TargetDown
from broker.lifecycle import end_task
from broker.lifecycle.attend import attend, note
from broker.model.ids import InstanceId
from broker.model.lease import CloseReason, LeaseState
from broker.model.observed import Observation
from broker.model.task import EndReason
from broker.store import leases
from ca.errors import Problem
from fakes.filling import Filling, only_endings
from fakes.world import living, role

WHO = InstanceId("0" * 32)
MOMENT = timedelta(microseconds=1)


async def test_silence_ends_a_lease_at_its_moment_and_not_before(tmp_path: Path) -> None:
    """A microsecond before it is let be, at it it is ended."""
    async with living(tmp_path) as house:
        lease = (await house.obtain(await house.open())).lease
        await attend(house.world, lease, lease.ack_by - MOMENT)
        lease = await house.lease(lease.id)
        assert lease.state is LeaseState.ACTIVE
        await attend(house.world, lease, lease.ack_by)
        assert (await house.lease(lease.id)).close_reason is CloseReason.NOT_ACKNOWLEDGED


async def test_a_lease_that_may_not_be_renewed_runs_out_at_its_end_and_not_before(tmp_path: Path) -> None:
    """It is looked at again exactly then, although the disk is full meanwhile."""
    short = role(longest=timedelta(minutes=2))
    async with living(tmp_path, the_role=short, wrap=Filling) as house:
        lease = await house.lease((await house.held(await house.open())).lease.id)
        assert lease.until == lease.last
        only_endings(house)
        await attend(house.world, lease, lease.until - MOMENT)
        lease = await house.lease(lease.id)
        assert (lease.state, lease.due_at) == (LeaseState.ACTIVE, lease.until)
        await attend(house.world, lease, lease.until)
        lease = await house.lease(lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)


@pytest.mark.parametrize("far", [False, True])
async def test_an_end_that_is_not_written_yet_ends_what_hangs_on_it(tmp_path: Path, *, far: bool) -> None:
    """Of the task or of one above it; while its target is away the end is decided all the same."""
    async with living(tmp_path) as house:
        top = await house.open()
        held = (await house.held(await house.open(top))).lease
        now = house.clock.now()
        house.world.unrecorded[top.id] = end_task.because(house.world, top.id, EndReason.SAID_SO, now)
        await (note if far else attend)(house.world, await house.lease(held.id), now)
        lease = await house.lease(held.id)
        assert lease.close_reason is CloseReason.TASK_ENDED
        assert lease.state is (LeaseState.REVOKING if far else LeaseState.REVOKED)


@pytest.mark.parametrize("verb", [attend, note])
async def test_what_a_call_of_ours_holds_is_left_to_it(tmp_path: Path, verb: object) -> None:
    """Nothing is decided beside it."""
    async with living(tmp_path) as house:
        task = await house.open()
        held = (await house.held(task)).lease
        await house.end(task)
        house.world.in_flight.add(held.id)
        before = await house.lease(held.id)
        await verb(house.world, before, house.clock.now())  # type: ignore[operator]
        assert await house.lease(held.id) == before


async def test_while_a_target_is_away_a_lease_waits_for_its_next_bound(tmp_path: Path) -> None:
    """A quarter of a minute, or less where the time to acknowledge or its end come first."""
    async with living(tmp_path, wrap=Filling) as house:
        silent = (await house.obtain(await house.open())).lease
        only_endings(house)
        begun = house.clock.now()
        for after, due in ((0, 15), (20, 30)):
            await note(house.world, await house.lease(silent.id), begun + timedelta(seconds=after))
            assert (await house.lease(silent.id)).due_at == begun + timedelta(seconds=due)
        heard = await house.lease(silent.id)
        heard = await house.world.database.write(lambda tx: leases.keep(tx, heard, acknowledged_at=begun), ending=True)
        for after, due in ((20, 35), (110, 120)):
            await note(house.world, await house.lease(silent.id), begun + timedelta(seconds=after))
            assert (await house.lease(silent.id)).due_at == begun + timedelta(seconds=due)
        await note(house.world, await house.lease(silent.id), heard.until)
        ending = await house.lease(silent.id)
        assert (ending.state, ending.close_reason) == (LeaseState.REVOKING, CloseReason.RAN_OUT)


@pytest.mark.parametrize("verb", [attend, note])
@pytest.mark.parametrize("heard", [False, True])
async def test_in_quarantine_what_our_memory_says_is_over_is_let_be(
    tmp_path: Path, verb: object, *, heard: bool
) -> None:
    """Until its last moment: then nothing could have moved it, whatever was forgotten. An ended task is believed."""
    async with living(tmp_path) as house:
        task = await house.open()
        held = (await (house.held if heard else house.obtain)(task)).lease
        lease = await house.lease(held.id)
        for moment in (lease.until + MOMENT, lease.last - MOMENT):
            await verb(house.world, await house.lease(held.id), moment, quarantined=True)  # type: ignore[operator]
            assert (await house.lease(held.id)).state is LeaseState.ACTIVE
        await verb(house.world, await house.lease(held.id), lease.last, quarantined=True)  # type: ignore[operator]
        over = await house.lease(held.id)
        assert over.state is (LeaseState.REVOKED if verb is attend else LeaseState.REVOKING)
        assert over.close_reason is (CloseReason.RAN_OUT if heard else CloseReason.NOT_ACKNOWLEDGED)


@pytest.mark.parametrize("verb", [attend, note])
async def test_in_quarantine_an_ended_task_is_believed(tmp_path: Path, verb: object) -> None:
    """Nothing brings a task back, so no memory can be wrong about it."""
    async with living(tmp_path) as house:
        task = await house.open()
        held = (await house.held(task)).lease
        await house.end(task)
        await verb(house.world, await house.lease(held.id), house.clock.now(), quarantined=True)  # type: ignore[operator]
        assert (await house.lease(held.id)).close_reason is CloseReason.TASK_ENDED


async def test_a_renewal_that_is_fenced_is_tried_again_before_the_end(tmp_path: Path) -> None:
    """Its process is not seen for now: in a second, or at its end where that comes first."""
    async with living(tmp_path) as house:
        held = (await house.held(await house.open(instance=WHO))).lease
        house.observer.states[WHO] = Observation.UNOBSERVED
        for before, due in ((timedelta(seconds=30), timedelta(seconds=29)), (MOMENT, timedelta(0))):
            await attend(house.world, await house.lease(held.id), held.until - before)
            lease = await house.lease(held.id)
            assert (lease.state, lease.due_at) == (LeaseState.ACTIVE, held.until - due)


@pytest.mark.parametrize("error", [TargetDown("nobody is there"), OutcomeUnknown("no answer"), Problem("it says no")])
async def test_a_target_that_does_not_answer_is_no_trouble_of_the_reaper_s(tmp_path: Path, error: Problem) -> None:
    """It is noted with the lease either way; what is no outage is raised besides."""
    async with living(tmp_path) as house:
        held = (await house.held(await house.open())).lease
        house.engine.fail("renew", error=error)
        raised: Problem | None = None
        try:
            await attend(house.world, await house.lease(held.id), house.clock.now())
        except Problem as problem:
            raised = problem
        assert raised is (None if isinstance(error, TargetDown | OutcomeUnknown) else error)
        assert (await house.lease(held.id)).trouble == str(error)


async def test_an_intent_nobody_works_on_is_in_doubt_and_settled_in_one_look(tmp_path: Path) -> None:
    """While its target is away it is in doubt, and told so."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        asking = house.world.group.create_task(_lost(house.obtain(await house.open())))
        await arrived.wait()
        (intent,) = await house.leases()
        house.world.in_flight.discard(intent.id)
        await note(house.world, intent, house.clock.now())
        doubted = await house.lease(intent.id)
        assert doubted.state is LeaseState.IN_DOUBT
        await note(house.world, doubted, house.clock.now())
        assert await house.lease(intent.id) == doubted
        await attend(house.world, replace(doubted), house.clock.now())
        assert (await house.lease(intent.id)).state is LeaseState.REVOKING
        go.set()
        await asking
    assert not any(one.enabled for one in house.engine.target.principals.values())


async def _lost(work: object) -> None:
    with pytest.raises(Problem):
        await work  # type: ignore[misc]
