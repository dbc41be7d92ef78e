"""A secret's end: whatever fails, whenever, access is gone in the end and the record says what is true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotYet, OutcomeUnknown, TargetDown
from broker.lifecycle import withdraw
from broker.lifecycle.schedule import may_still_appear_until
from broker.model.event import EventKind
from broker.model.lease import CloseReason, Handle, LeaseState
from broker.model.receipt import ReceiptKind
from ca.errors import Problem, Unavailable
from fakes.clock import ManualClock
from fakes.filling import Filling, only_endings
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


@pytest.mark.parametrize(("early", "state"), [(1, LeaseState.REVOKING), (0, LeaseState.REVOKED)])
async def test_what_was_refused_is_cleaned_up_when_nothing_of_it_can_come(
    tmp_path: Path, early: int, state: LeaseState
) -> None:
    """At that very moment, and not a microsecond before."""
    async with living(tmp_path) as house:
        house.engine.fail("create", error=Unavailable("the target refused"))
        with pytest.raises(Unavailable):
            await house.obtain(await house.open())
        (lease,) = await house.leases()
        until = may_still_appear_until(lease)
        assert until is not None
        done = await withdraw.drain(house.world, lease, until - timedelta(microseconds=early))
        assert done.state is state
        assert done.access_ended_at is not None


async def test_every_step_of_an_ending_finds_room(tmp_path: Path) -> None:
    """A full disk and a target whose places are all taken hold no ending up, and none that is put off."""
    async with living(tmp_path, wrap=Filling) as house:
        first, second = await house.held(await house.open()), await house.held(await house.open())
        only_endings(house)
        now = house.clock.now()
        await withdraw.cut_unrecorded(house.world, first.lease)
        assert await house.engine.target.login(first.issued) is None
        assert (await withdraw.end(house.world, first.lease, CloseReason.ASKED, now)).state is LeaseState.REVOKED
        begun = await withdraw.begin(house.world, second.lease.id, CloseReason.ASKED, now)
        house.engine.fail("end_access", error=NotYet("still there"))
        put_off = await withdraw.drain(house.world, begun, now)
        assert (put_off.attempts, put_off.trouble) == (1, "still there")
        assert (await withdraw.drain(house.world, put_off, now)).state is LeaseState.REVOKED


async def test_tries_come_at_growing_intervals_and_never_stop(tmp_path: Path) -> None:
    """From a quarter of a second to a minute; each says why; nothing is announced of a try."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        lease = await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, house.clock.now())
        said = len(await house.receipts()), len(await house.events())
        house.engine.fail("end_access", error=NotYet("still there"), times=20)
        waits = []
        for attempt in range(1, 13):
            lease = await withdraw.drain(house.world, lease, house.clock.now())
            assert (lease.attempts, lease.trouble, lease.state) == (attempt, "still there", LeaseState.REVOKING)
            waits.append((lease.due_at - house.clock.now()).total_seconds())
        assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
        assert (len(await house.receipts()), len(await house.events())) == said


@pytest.mark.parametrize("revocable", [True, False])
async def test_what_is_decided_of_an_end_stands_in_the_lease(tmp_path: Path, *, revocable: bool) -> None:
    """Why and when; due at once; and by when access should be gone: at its own end where nobody can take it back."""
    clock = ManualClock()
    async with living(tmp_path, clock=clock, engine=FakeEngine(FakeTarget(clock), revocable=revocable)) as house:
        handed = await house.held(await house.open())
        await clock.advance(7)
        now = clock.now()
        begun = await withdraw.begin(house.world, handed.lease.id, CloseReason.OPERATOR, now, trouble="it leaks")
        assert (begun.close_reason, begun.trouble) == (CloseReason.OPERATOR, "it leaks")
        assert (begun.revoking_at, begun.due_at) == (now, now)
        assert begun.end_due_at == (now if revocable else handed.lease.until)
        again = await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, now, trouble="another")
        assert again == begun == await house.lease(handed.lease.id)


async def test_what_runs_out_runs_out_at_its_last_second_from_the_reserve(tmp_path: Path) -> None:
    """Waited for until then, closed as expired with the moment its access ended; before that nothing is claimed."""
    clock = ManualClock()
    engine = FakeEngine(FakeTarget(clock), revocable=False)
    async with living(tmp_path, clock=clock, engine=engine, wrap=Filling) as house:
        handed = await house.held(await house.open())
        only_endings(house)
        begun = await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, clock.now())
        waiting = await withdraw.drain(house.world, begun, clock.now())
        assert (waiting.state, waiting.due_at, waiting.access_ended_at) == (LeaseState.REVOKING, begun.until, None)
        closed = await withdraw.drain(house.world, waiting, begun.until)
        assert (closed.state, closed.access_ended_at, closed.closed_at) == (
            LeaseState.EXPIRED,
            begun.until,
            begun.until,
        )
        last = (await house.receipts())[-1].receipt
        assert (last.kind, last.body["state"], last.body["reason"]) == (ReceiptKind.LEASE_CLOSED, "expired", "asked")


async def test_the_first_wish_to_end_what_is_being_made_is_the_one_that_is_kept(tmp_path: Path) -> None:
    """With who had it; a second one changes nothing."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_refused(house.obtain(await house.open())))
            await arrived.wait()
            (making,) = await house.leases()
            now = house.clock.now()
            first = await withdraw.begin(house.world, making.id, CloseReason.ASKED, now, actor="operator:ada")
            assert (first.state, first.due_at) == (LeaseState.INTENDED, now)
            assert "operator:ada" in str(first.trouble)
            assert await withdraw.begin(house.world, making.id, CloseReason.OPERATOR, now) == first
            go.set()
            await asking
        await house.clock.advance(30)
        await house.reap()
        lease = await house.lease(making.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.ASKED)


async def _refused(work: Awaitable[object]) -> None:
    with pytest.raises(Problem):
        await work
