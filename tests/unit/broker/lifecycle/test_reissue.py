"""The same request again: what is written before the target is asked, and every way in which nothing is handed over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Fenced, OutcomeUnknown, TargetDown, UnderWay
from broker.lifecycle import end_task, reissue, withdraw
from broker.lifecycle.schedule import Course
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason
from ca.errors import Stale, Unavailable
from fakes.world import AGENT, living, role


async def test_a_second_secret_is_written_down_before_it_is_made(tmp_path: Path) -> None:
    """Its generation, its own time to be acknowledged, its end; with the decision it stands on, by its caller."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = (await house.obtain(task, key="k")).lease
        await house.clock.advance(20)
        before, permit = len(await house.receipts()), house.permit(task)
        house.engine.fail("replace", error=TargetDown("nobody is there"))
        with pytest.raises(TargetDown):
            await house.obtain(task, key="k", permit=permit)
        now, again = house.clock.now(), await house.lease(first.id)
        assert (again.generation, again.state) == (2, LeaseState.ACTIVE)
        assert (again.ack_by, again.due_at) == (now + timedelta(seconds=30),) * 2
        assert again.until == now + timedelta(minutes=2)
        said = [entry.receipt for entry in (await house.receipts())[before:]]
        assert [(one.kind, one.actor) for one in said] == [
            (ReceiptKind.DECIDED, str(AGENT)),
            (ReceiptKind.LEASE_REISSUED, str(AGENT)),
        ]
        assert (said[0].body["decision"], said[1].body["generation"]) == (permit.decision.id, 2)
        await house.clock.advance(1)  # the target is looked at again
        third = await house.obtain(task, key="k")
        assert third.lease.generation == 3
        assert await house.engine.target.login(third.issued) is not None
        assert house.engine.target.principals[first.handle.name].until == third.lease.until
        assert not len(house.world.in_flight)


async def test_a_key_stands_for_one_role(tmp_path: Path) -> None:
    """Nothing of another role is answered from it."""
    async with living(tmp_path) as house:
        task, other = await house.open(), role(name="other")
        first = await house.obtain(task, key="k")
        with pytest.raises(Stale):
            await house.obtain(task, key="k", role=other)
        assert (await house.lease(first.lease.id)).generation == 1
        assert await house.engine.target.login(first.issued) is not None


async def test_one_that_is_being_answered_is_not_answered_twice(tmp_path: Path) -> None:
    """The second hears to wait, and the first one's hold is not broken by it."""
    async with living(tmp_path) as house:
        lease = (await house.obtain(await house.open(), key="k")).lease
        house.world.in_flight.add(lease.id)
        course = Course.of(house.clock, house.clock.now())
        with pytest.raises(UnderWay):
            await reissue.reissue(house.world, lease, house.role, course)
        assert lease.id in house.world.in_flight
        assert "replace" not in {verb for verb, _ in house.engine.calls}


async def test_a_principal_that_is_gone_ends_the_lease_it_had(tmp_path: Path) -> None:
    """With the reason; asked again, the key gets another one."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = (await house.obtain(task, key="k")).lease
        house.engine.target.principals.clear()
        with pytest.raises(Unavailable):
            await house.obtain(task, key="k")
        lease = await house.lease(first.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKING, CloseReason.RAN_OUT)
        assert lease.trouble == "the principal was removed"
        assert (await house.obtain(task, key="k")).lease.id != first.id


async def test_a_secret_that_is_not_replaced_is_taken_back(tmp_path: Path) -> None:
    """Nobody acknowledged it, so nobody loses it."""
    async with living(tmp_path) as house:
        house.engine.fixed = True
        task = await house.open()
        first = (await house.obtain(task, key="k")).lease
        with pytest.raises(Unavailable):
            await house.obtain(task, key="k")
        lease = await house.lease(first.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKING, CloseReason.NOT_ACKNOWLEDGED)
        assert lease.trouble == "its secret can't be replaced"


@pytest.mark.parametrize("how", ["ended", "unwritten", "late"])
async def test_what_came_after_its_task_s_end_is_not_handed_over(tmp_path: Path, how: str) -> None:
    """By its row, by word that could not be written, by its deadline: the fence is passed again after the target."""
    async with living(tmp_path) as house:
        task = await house.open(deadline=house.clock.now() + timedelta(seconds=5))
        first = (await house.obtain(task, key="k")).lease
        replaced = house.engine.replace

        async def replace(*arguments: object) -> object:
            issued = await replaced(*arguments)
            if how == "ended":
                await house.end(task)
                await house.reap()
            elif how == "unwritten":
                now = house.clock.now()
                house.world.unrecorded[task.id] = end_task.because(house.world, task.id, EndReason.SAID_SO, now)
            else:
                await house.clock.advance(5)
            return issued

        house.engine.replace = replace
        with pytest.raises(Fenced):
            await house.obtain(task, key="k")
        house.engine.replace = replaced
        for _ in range(8):
            await house.clock.advance(16)
            await house.reap()
        assert not any(one.enabled for one in house.engine.target.principals.values())
        assert not len(house.world.in_flight)
        assert (await house.lease(first.id)).acknowledged_at is None


async def test_of_two_answers_the_overtaken_one_is_no_answer(tmp_path: Path) -> None:
    """Its generation is not the newest any more: it is not confirmed, and the newest goes on working."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.obtain(task, key="k")
        house.engine.fail("replace", error=OutcomeUnknown("no answer"))
        with pytest.raises(OutcomeUnknown):
            await house.obtain(task, key="k")
        (older,) = await house.leases()
        await house.clock.advance(1)
        newest = await house.obtain(task, key="k")
        course = Course.of(house.clock, house.clock.now())
        with pytest.raises(Stale):
            await reissue._confirmed(house.world, older, course)
        assert await house.engine.target.login(newest.issued) is not None


async def test_what_was_made_for_a_lease_that_ended_meanwhile_opens_nothing(tmp_path: Path) -> None:
    """The end came first, so what the late answer made is ended again, record or not."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = (await house.obtain(task, key="k")).lease
        replaced = house.engine.replace

        async def replace(*arguments: object) -> object:
            await withdraw.begin(house.world, first.id, CloseReason.OPERATOR, house.clock.now())
            return await replaced(*arguments)

        house.engine.replace = replace
        with pytest.raises(Stale):
            await house.obtain(task, key="k")
        assert not any(one.enabled for one in house.engine.target.principals.values())
