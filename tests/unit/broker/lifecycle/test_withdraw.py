"""A secret's end: whatever fails, whenever, access is gone in the end and the record says what is true."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotYet, OutcomeUnknown, TargetDown
from broker.lifecycle import withdraw
from broker.model.event import EventKind
from broker.model.lease import CloseReason, Handle, LeaseState
from broker.model.receipt import ReceiptKind
from fakes.clock import ManualClock
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget, in_both_ways  # noqa: F401 - a fixture
from fakes.world import living, role

pytestmark = pytest.mark.usefixtures("in_both_ways", "on_every_store")


async def test_an_ended_task_leaves_nothing(tmp_path: Path) -> None:
    """Sessions are cut, the login is refused, the principal is gone, the task is told closed."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        session = await house.engine.target.login(handed.issued)
        await house.end(task)
        await house.reap()
        assert not await session.answers()
        assert await house.engine.target.login(handed.issued) is None
        assert not house.engine.target.principals
        assert [event.kind for event in await house.events()][-3:] == [
            EventKind.LEASE_ACCESS_ENDED,
            EventKind.LEASE_CLOSED,
            EventKind.TASK_CLOSED,
        ]
        (access,) = [e for e in await house.receipts() if e.receipt.kind is ReceiptKind.LEASE_ACCESS_ENDED]
        assert access.receipt.body["sessions_cut"] == 1


@pytest.mark.parametrize("verb", ["end_access", "clean_up"])
@pytest.mark.parametrize("after", [False, True])
async def test_an_ending_is_tried_until_it_is_verified(tmp_path: Path, verb: str, *, after: bool) -> None:
    """Whatever the target answers, in whichever way it fails, the lease is never closed before it is gone."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        house.engine.fail(verb, after=after, error=NotYet("still there"), times=3)
        await house.end(task)
        for _ in range(3):
            await house.reap()
            assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKING
            await house.clock.advance(5)
        await house.reap()
        closed = await house.lease(handed.lease.id)
        assert (closed.state, closed.trouble, closed.attempts) == (LeaseState.REVOKED, None, 3)
        assert not house.engine.target.principals


async def test_a_target_that_is_down_for_days_is_never_given_up(tmp_path: Path) -> None:
    """Tries go on at intervals of at most a minute, and the first after it came back succeeds."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.held(task)
        house.engine.fail("end_access", error=TargetDown("nobody is there"), times=200)
        await house.end(task)
        for _ in range(300):
            await house.reap()
            await house.clock.advance(61)
        assert [lease.state for lease in await house.leases()] == [LeaseState.REVOKED]


async def test_a_given_back_lease_says_why(tmp_path: Path) -> None:
    """The reason stands in the lease, the receipt and the event."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        begun = await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, house.clock.now(), actor="me")
        assert begun.state is LeaseState.REVOKING
        again = await withdraw.begin(house.world, handed.lease.id, CloseReason.OPERATOR, house.clock.now())
        assert again.close_reason is CloseReason.ASKED
        revoking = [e.receipt for e in await house.receipts() if e.receipt.kind is ReceiptKind.LEASE_REVOKING]
        assert [(r.actor, r.body["reason"]) for r in revoking] == [("me", "asked")]


async def test_what_cannot_be_revoked_closes_as_expired_at_its_last_second(tmp_path: Path) -> None:
    """It is `revoking` until then: `revoked` would be a lie."""
    clock = ManualClock()
    async with living(tmp_path, clock=clock, engine=FakeEngine(FakeTarget(clock), revocable=False)) as house:
        task = await house.open()
        handed = await house.held(task)
        await house.end(task)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKING
        await clock.advance(121)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.EXPIRED


class Unhurried(FakeEngine):
    """One whose secrets live a quarter of an hour at least, and are not taken back."""

    fixed = True

    def shortest(self, handle: Handle) -> timedelta:
        return timedelta(minutes=15)


async def test_what_outlives_its_task_is_not_closed_before_it_ended(tmp_path: Path) -> None:
    """A target that gives nothing short: the lease lasts as long as the secret, past the task's deadline."""
    clock = ManualClock()
    engine = Unhurried(FakeTarget(clock), revocable=False)
    async with living(tmp_path, clock=clock, engine=engine, the_role=role(ttl=timedelta(minutes=20))) as house:
        task = await house.open(deadline=clock.now() + timedelta(minutes=1))
        handed = await house.held(task)
        assert handed.lease.until == handed.lease.last == handed.lease.intended_at + timedelta(minutes=15)
        await house.end(task)
        for minutes, state in ((14, LeaseState.REVOKING), (2, LeaseState.EXPIRED)):
            await clock.advance(minutes * 60)
            await house.reap()
            lease = await house.lease(handed.lease.id)
            assert lease.state is state
        assert lease.access_ended_at == handed.lease.until


async def test_access_that_ended_is_told_before_the_rest_is_cleared_away(tmp_path: Path) -> None:
    """`access_ended_at` does not wait for the clean-up."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        house.engine.fail("clean_up", error=OutcomeUnknown("no answer came"))
        await house.end(task)
        await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.access_ended_at is not None, lease.closed_at) == (True, None)
