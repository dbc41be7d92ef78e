"""A create nobody heard of: certain once its name is taken or its time is over; never guessed, never forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.engines.protocol import Making
from broker.errors import Fenced, NotYet, OutcomeUnknown, TargetDown
from broker.lifecycle import doubt, flight, withdraw
from broker.model.event import EventKind
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.report import Fate, Line
from ca.errors import Conflict, Problem, Stale, Unavailable
from fakes.clock import ManualClock
from fakes.filling import Filling, only_endings
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget, Unlisted, in_both_ways  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")


@asynccontextmanager
async def upserting(folder: Path, kind: type[FakeEngine] = FakeEngine) -> AsyncIterator[House]:
    """A broker whose target makes anew what it finds."""
    clock = ManualClock()
    async with living(folder, clock=clock, engine=kind(FakeTarget(clock), making=Making.UPSERT)) as house:
        yield house


@pytest.mark.parametrize("happened", [False, True])
async def test_an_unknown_outcome_is_in_doubt_until_the_name_is_occupied(tmp_path: Path, *, happened: bool) -> None:
    """Whether the create happened or not, the name is taken, disabled, held until no create can come, and dropped."""
    async with living(tmp_path) as house:
        house.engine.fail("create", after=happened, error=OutcomeUnknown("no answer came"))
        with pytest.raises(OutcomeUnknown):
            await house.obtain(await house.open())
        (lease,) = await house.leases()
        assert lease.state is LeaseState.IN_DOUBT
        await house.clock.advance(1)  # the target is looked at again
        await house.reap()
        tombstone = house.engine.target.principals[lease.handle.name]
        assert not tombstone.enabled
        assert (await house.lease(lease.id)).state is LeaseState.REVOKING
        await house.clock.advance(15)
        await house.reap()
        assert (await house.lease(lease.id)).state is LeaseState.REVOKED
        assert not house.engine.target.principals


@pytest.mark.parametrize("happened", [False, True])
async def test_an_upsert_stays_in_doubt_until_it_can_not_come_any_more(tmp_path: Path, *, happened: bool) -> None:
    """Access is ended at once, and the lease says what is true: nobody knows. Then it is ended again, and closed."""
    async with upserting(tmp_path) as house:
        house.engine.fail("create", after=happened, error=OutcomeUnknown("no answer came"))
        with pytest.raises(OutcomeUnknown):
            await house.obtain(await house.open())
        await house.clock.advance(1)
        await house.reap()
        (lease,) = await house.leases()
        assert (lease.state, lease.access_ended_at) == (LeaseState.IN_DOUBT, None)
        assert Line.of(lease).fate is Fate.ENDING
        assert not any(one.enabled for one in house.engine.target.principals.values())
        await house.clock.advance(71)
        await house.reap()
        closed = await house.lease(lease.id)
        assert (closed.state, closed.close_reason) == (LeaseState.REVOKED, CloseReason.NEVER_MADE)
        assert not house.engine.target.principals
        assert [verb for verb, _ in house.engine.calls].count("end_access") == 2


@pytest.mark.parametrize("after", [30.0, 200.0])
async def test_an_upsert_that_arrives_late_is_destroyed(tmp_path: Path, after: float) -> None:
    """Inside the wait by the second ending, after it by the sweep; the secret it made is handed to nobody."""
    async with upserting(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        task = await house.open()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            await house.clock.advance(10)
            assert isinstance(await asking, OutcomeUnknown)
            for moment in range(0, 210, 5):
                await house.clock.advance(5)
                await house.reap()
                if moment == after:
                    go.set()
                    await house.clock.settle()
                    assert house.engine.target.principals
            await house.sweep()
        assert not house.engine.target.principals
        assert [lease.state for lease in await house.leases()] == [LeaseState.REVOKED]


async def test_where_nothing_can_be_listed_the_lease_says_so(tmp_path: Path) -> None:
    """Its guarantee, from the intent on: what comes too late is found by nobody, and no sweep pretends otherwise."""
    async with upserting(tmp_path, Unlisted) as house:
        lease = (await house.held(await house.open())).lease
        assert not lease.guarantee.swept
        assert (await house.lease(lease.id)).guarantee.to_json()["swept"] is False
        swept = await house.sweep()
        assert (swept.principals, swept.missing, swept.destroyed) == (None, [], [])


@pytest.mark.usefixtures("in_both_ways")
async def test_a_broker_that_was_frozen_past_its_deadline_hands_nothing_over(tmp_path: Path) -> None:
    """The target answered in time and nobody was awake to hear it; whoever waited has gone on without it."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        task = await house.open()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            house.engine.target.clock = ManualClock(house.clock.now())  # the target answered long ago
            go.set()
            house.clock._move_to(house.clock.boot() + 60)  # thawed: everything that waited is due at the same moment
            assert isinstance(await asking, OutcomeUnknown)
        assert not any(one.enabled for one in house.engine.target.principals.values())
        await house.clock.advance(30)
        await house.reap()
        assert not house.engine.target.principals


@pytest.mark.usefixtures("in_both_ways")
async def test_a_create_whose_lease_was_settled_by_others_is_destroyed(tmp_path: Path) -> None:
    """Another broker took this one for dead: what the call made is ended, though its lease is not its any more."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        task = await house.open()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            (held,) = await house.leases()
            await doubt.lost(house.world, held, house.clock.now())
            go.set()
            assert isinstance(await asking, Stale)
        assert not any(one.enabled for one in house.engine.target.principals.values())
        for _ in range(20):
            await house.clock.advance(5)
            await house.reap()
        await house.sweep()
        assert not house.engine.target.principals


@pytest.mark.usefixtures("in_both_ways")
@pytest.mark.parametrize("answer", ["made", "lost", "down"])
async def test_a_lease_that_is_given_back_while_it_is_being_made_is_never_handed_over(
    tmp_path: Path, answer: str
) -> None:
    """The word is kept with the intent, whatever the target answers: no secret leaves, nothing stays, it says why."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        if answer != "made":
            house.engine.fail("create", after=answer == "lost")
        task = await house.open()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            (making,) = await house.leases()
            now = house.clock.now()
            wished = await withdraw.begin(house.world, making.id, CloseReason.OPERATOR, now, actor="operator:ada")
            assert (wished.state, wished.close_reason) == (LeaseState.INTENDED, CloseReason.OPERATOR)
            await house.reap()
            go.set()
            assert isinstance(await asking, Problem)
        assert not any(one.enabled for one in house.engine.target.principals.values()) or answer == "lost"
        for _ in range(20):
            await house.clock.advance(5)
            await house.reap()
        (lease,) = await house.leases()
        assert lease.state is LeaseState.REVOKED
        assert lease.close_reason is (CloseReason.NEVER_MADE if answer == "down" else CloseReason.OPERATOR)
        assert not house.engine.target.principals


async def test_a_call_that_never_returns_holds_its_lease_for_a_while_only(tmp_path: Path) -> None:
    """Then the lease is looked after like any other, though its holder never said a word."""
    async with living(tmp_path) as house:
        handed = await house.held(task := await house.open())
        house.world.in_flight.add(handed.lease.id)
        await house.end(task)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.ACTIVE
        await house.clock.advance(flight.LONGEST)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED


async def _outcome(work: object) -> object:
    try:
        return await work  # type: ignore[misc]
    except Problem as error:
        return error


@pytest.mark.parametrize(
    "error", [OutcomeUnknown("no answer"), TargetDown("down"), Conflict("no"), Unavailable("late")]
)
async def test_a_create_that_failed_is_recorded_from_the_reserve(tmp_path: Path, error: Problem) -> None:
    """The disk filled while the target was asked: whatever it answered is noted, and what it made is taken back."""
    async with living(tmp_path, wrap=Filling) as house:
        task = await house.open()
        made = house.engine.create

        async def create(*arguments: Any) -> Any:
            await made(*arguments)
            only_endings(house)
            raise error

        house.engine.create = create
        assert await _outcome(house.obtain(task)) is error
        (lease,) = await house.leases()
        unsent = isinstance(error, TargetDown)
        assert lease.state is (
            LeaseState.REVOKED
            if unsent
            else LeaseState.IN_DOUBT
            if isinstance(error, OutcomeUnknown)
            else LeaseState.REVOKING
        )
        assert lease.trouble == (
            None if unsent else "the create was not answered" if isinstance(error, OutcomeUnknown) else str(error)
        )
        for _ in range(3):
            await house.clock.advance(15)
            await house.reap()
        lease = await house.lease(lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NEVER_MADE)


async def test_what_was_never_sent_is_over_in_one_step(tmp_path: Path) -> None:
    """Closed, with every moment, one receipt and one event; nobody was asked outside."""
    async with living(tmp_path) as house:
        house.engine.fail("create", error=TargetDown("nobody is there"))
        await _outcome(house.obtain(await house.open()))
        (lease,) = await house.leases()
        now = house.clock.now()
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NEVER_MADE)
        assert (lease.revoking_at, lease.access_ended_at, lease.closed_at) == (now, now, now)
        last = (await house.receipts())[-1].receipt
        assert (last.kind, last.body["reason"]) == (ReceiptKind.LEASE_CLOSED, "never-made")
        assert [event.kind for event in await house.events()] == [EventKind.LEASE_CLOSED]
        assert {verb for verb, _ in house.engine.calls} == {"claim", "create"}


@pytest.mark.parametrize("making", sorted(Making))
async def test_doubt_says_by_when_it_should_be_over(tmp_path: Path, making: Making) -> None:
    """Due at once, and overdue only after the last moment at which the create may still arrive."""
    clock = ManualClock()
    async with living(tmp_path, clock=clock, engine=FakeEngine(FakeTarget(clock), making=making)) as house:
        house.engine.fail("create", error=OutcomeUnknown("no answer came"))
        await _outcome(house.obtain(await house.open()))
        (lease,) = await house.leases()
        margin = 1 if making is Making.CREATE_ONLY else 60
        assert lease.due_at == clock.now()
        assert lease.end_due_at == lease.intended_at + timedelta(seconds=10 + margin)
        receipt = (await house.receipts())[-1].receipt
        assert (receipt.kind, receipt.body["state"]) == (ReceiptKind.LEASE_IN_DOUBT, "in_doubt")
        assert [event.kind for event in await house.events()] == [EventKind.LEASE_REVOKING]
        await clock.advance(1)  # the target is looked at again
        await doubt.settle(house.world, lease, clock.now())
        settled = await house.lease(lease.id)
        if making is Making.CREATE_ONLY:
            assert (settled.state, settled.revoking_at) == (LeaseState.REVOKING, clock.now())
            assert settled.due_at == lease.intended_at + timedelta(seconds=11)
        else:
            assert (settled.state, settled.due_at) == (LeaseState.IN_DOUBT, lease.end_due_at)


async def test_what_can_not_be_made_certain_stays_in_doubt(tmp_path: Path) -> None:
    """It is tried again, later each time, and says why."""
    async with living(tmp_path) as house:
        house.engine.fail("create", error=OutcomeUnknown("no answer came"))
        await _outcome(house.obtain(await house.open()))
        (lease,) = await house.leases()
        await house.clock.advance(1)
        house.engine.fail("occupy", error=NotYet("another has it"), times=2)
        for attempts, wait in ((1, 250), (2, 500)):
            await doubt.settle(house.world, await house.lease(lease.id), house.clock.now())
            kept = await house.lease(lease.id)
            assert (kept.state, kept.attempts, kept.trouble) == (LeaseState.IN_DOUBT, attempts, "another has it")
            assert kept.due_at == house.clock.now() + timedelta(milliseconds=wait)


async def test_what_was_made_and_may_not_be_used_is_taken_back_at_once(tmp_path: Path) -> None:
    """Its task ended while it was made: it is abandoned with the reason, and gone before the answer is."""
    async with living(tmp_path) as house:
        task = await house.open()
        arrived, go = house.engine.hold("create")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            await house.end(task)
            go.set()
            refused = await asking
        assert isinstance(refused, Fenced)
        assert not any(one.enabled for one in house.engine.target.principals.values())
        (lease,) = await house.leases()
        assert (lease.close_reason, lease.revoking_at) == (CloseReason.NEVER_MADE, house.clock.now())
        assert lease.access_ended_at == house.clock.now()
        kinds = [entry.receipt.kind for entry in await house.receipts()]
        assert ReceiptKind.LEASE_ACTIVATED not in kinds
        revoking = [one.receipt for one in await house.receipts() if one.receipt.kind is ReceiptKind.LEASE_REVOKING]
        assert [one.body["reason"] for one in revoking] == ["never-made"]


async def test_what_may_still_come_is_ended_and_waited_for_from_the_reserve(tmp_path: Path) -> None:
    """Where a create makes anew what it finds: neither a full disk nor a flood of grants holds that up."""
    clock = ManualClock()
    engine = FakeEngine(FakeTarget(clock), making=Making.UPSERT)
    async with living(tmp_path, clock=clock, engine=engine, wrap=Filling) as house:
        engine.fail("create", after=True, error=OutcomeUnknown("no answer came"))
        await _outcome(house.obtain(await house.open()))
        (lease,) = await house.leases()
        only_endings(house)
        await clock.advance(1)
        waiting = await doubt.settle(house.world, lease, clock.now())
        assert (waiting.state, waiting.due_at) == (LeaseState.IN_DOUBT, lease.end_due_at)
        assert not any(one.enabled for one in engine.target.principals.values())
