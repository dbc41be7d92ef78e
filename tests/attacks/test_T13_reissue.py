"""T13: a lost answer, a retry, a lost acknowledgement: one living secret at most, and it is shown once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.errors import AlreadyAcknowledged, Fenced, OutcomeUnknown, TargetDown
from broker.lifecycle import withdraw
from broker.lifecycle.acknowledge import acknowledge
from broker.model.lease import CloseReason, LeaseState
from ca.errors import NotFound, Stale, Unavailable
from fakes.world import AGENT, living


async def test_a_retry_gets_another_secret_and_the_first_one_is_dead(tmp_path: Path) -> None:
    """Same key, same principal, same lease; the old secret's session is cut."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = await house.obtain(task, key="k")
        session = await house.engine.target.login(first.issued)
        second = await house.obtain(task, key="k")
        assert (second.lease.id, second.lease.generation) == (first.lease.id, 2)
        assert await house.engine.target.login(first.issued) is None
        assert not await session.answers()
        assert await house.engine.target.login(second.issued) is not None
        assert len(house.engine.target.principals) == 1


async def test_after_the_acknowledgement_the_answer_is_no(tmp_path: Path) -> None:
    """The lease is named, no secret is shown, and the one in use goes on working."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task, key="k")
        with pytest.raises(AlreadyAcknowledged) as refused:
            await house.obtain(task, key="k")
        assert refused.value.details == {"lease": handed.lease.id}
        assert await house.engine.target.login(handed.issued) is not None


async def test_what_nobody_acknowledged_is_revoked_in_the_stated_time(tmp_path: Path) -> None:
    """A retry moves the time; then it is over, and the same key makes a new lease."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = await house.obtain(task, key="k")
        await house.clock.advance(20)
        await house.obtain(task, key="k")
        await house.clock.advance(20)
        await house.reap()
        assert (await house.lease(first.lease.id)).state is LeaseState.ACTIVE
        await house.clock.advance(11)
        await house.reap()
        lease = await house.lease(first.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NOT_ACKNOWLEDGED)
        assert (await house.obtain(task, key="k")).lease.id != first.lease.id


async def test_an_acknowledged_lease_outlives_the_time_to_acknowledge(tmp_path: Path) -> None:
    """A credential in use is not taken away for an answer that came in time; twice is once."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        await acknowledge(house.world, task.id, handed.lease.id, str(AGENT), house.clock.now())
        await house.clock.advance(45)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.ACTIVE


async def test_another_task_can_not_acknowledge(tmp_path: Path) -> None:
    """A lease's id is no capability."""
    async with living(tmp_path) as house:
        handed = await house.obtain(await house.open())
        other = await house.open()
        with pytest.raises(NotFound):
            await acknowledge(house.world, other.id, handed.lease.id, str(AGENT), house.clock.now())


async def test_an_ended_task_can_not_acknowledge(tmp_path: Path) -> None:
    """An acknowledgement keeps a secret alive, so it passes the fence."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.obtain(task)
        await house.end(task)
        with pytest.raises(Fenced):
            await acknowledge(house.world, task.id, handed.lease.id, str(AGENT), house.clock.now())


@pytest.mark.parametrize("error", [TargetDown("nobody is there"), OutcomeUnknown("no answer came")])
async def test_a_failed_reissue_may_be_asked_again(tmp_path: Path, error: Unavailable) -> None:
    """Nothing was handed over; the next try gives the only living secret."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = await house.obtain(task, key="k")
        house.engine.fail("replace", after=isinstance(error, OutcomeUnknown), error=error)
        with pytest.raises(type(error)):
            await house.obtain(task, key="k")
        await house.clock.advance(1)
        third = await house.obtain(task, key="k")
        assert await house.engine.target.login(third.issued) is not None
        assert await house.engine.target.login(first.issued) is None


async def test_a_task_that_ends_during_a_reissue_gets_nothing(tmp_path: Path) -> None:
    """The fence is passed again before the new secret is handed over."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.obtain(task, key="k")
        arrived, go = house.engine.hold("replace")

        async def retry() -> None:
            with pytest.raises((Fenced, Stale)):
                await house.obtain(task, key="k")

        async with asyncio.TaskGroup() as group:
            group.create_task(retry())
            await arrived.wait()
            await house.end(task)
            go.set()
        await house.reap()
        assert not house.engine.target.principals


async def test_a_lease_that_ends_during_a_reissue_hands_nothing_over(tmp_path: Path) -> None:
    """Its task lives; an operator took back this one secret, and the new one is not shown either."""
    async with living(tmp_path) as house:
        task = await house.open()
        first = await house.obtain(task, key="k")
        arrived, go = house.engine.hold("replace")

        async def retry() -> None:
            with pytest.raises(Stale):
                await house.obtain(task, key="k")

        async with asyncio.TaskGroup() as group:
            group.create_task(retry())
            await arrived.wait()
            await withdraw.begin(house.world, first.lease.id, CloseReason.OPERATOR, house.clock.now())
            go.set()
        await house.reap()
        assert not house.engine.target.principals


async def test_two_retries_at_once_hand_over_one_secret(tmp_path: Path) -> None:
    """The second is told to come again."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.obtain(task, key="k")
        arrived, go = house.engine.hold("replace")
        async with asyncio.TaskGroup() as group:
            retrying = group.create_task(house.obtain(task, key="k"))
            await arrived.wait()
            with pytest.raises(Unavailable):
                await house.obtain(task, key="k")
            go.set()
        assert await house.engine.target.login(retrying.result().issued) is not None


async def test_the_idempotency_row_holds_no_answer(tmp_path: Path) -> None:
    """A key, a digest, a lease: nothing to show again."""
    async with living(tmp_path) as house:
        await house.obtain(await house.open(), key="k")

        async def columns(tx: object) -> set[str]:
            row = await tx.fetchrow("SELECT * FROM requests ORDER BY key")  # type: ignore[attr-defined]
            return set(row)

        assert await house.world.database.read(columns) == {"task", "key", "digest", "lease", "made_at"}


async def test_a_secret_that_can_not_be_replaced_is_taken_back_and_another_one_made(tmp_path: Path) -> None:
    """A certificate lives as long as it says, whoever has it: its principal goes, and the retry gets a new one."""
    async with living(tmp_path) as house:
        house.engine.fixed = True
        task = await house.open()
        first = await house.obtain(task, key="k")
        with pytest.raises(Unavailable, match="ask again"):
            await house.obtain(task, key="k")
        await house.reap()
        lease = await house.lease(first.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NOT_ACKNOWLEDGED)
        assert await house.engine.target.login(first.issued) is None
        second = await house.obtain(task, key="k")
        assert second.lease.id != first.lease.id
        assert await house.engine.target.login(second.issued) is not None
