"""A secret comes to be, and every way in which it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import AlreadyAcknowledged, ClockUntrusted, Fenced, KeyReused, TargetDown
from broker.model.event import EventKind
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.scope import Budget, Scope, Sensitivity, patterns
from broker.model.task import TaskState
from ca.errors import Conflict, Exhausted, Stale, Unavailable
from ca.runtime.clock import micros
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import in_both_ways  # noqa: F401 - a fixture
from fakes.world import living, role

pytestmark = [pytest.mark.usefixtures("on_every_store"), pytest.mark.usefixtures("in_both_ways")]


async def test_what_is_handed_over_opens_the_target_and_is_recorded_before(tmp_path: Path) -> None:
    """Decision, intent and activation are durable before the secret is handed over, in this order."""
    async with living(tmp_path) as house:
        handed = await house.obtain(await house.open())
        assert await house.engine.target.login(handed.issued) is not None
        kinds = [entry.receipt.kind for entry in await house.receipts()]
        assert kinds == [ReceiptKind.DECIDED, ReceiptKind.LEASE_INTENDED, ReceiptKind.LEASE_ACTIVATED]
        assert [event.kind for event in await house.events()] == [EventKind.LEASE_ISSUED]
        assert (await house.lease(handed.lease.id)).state is LeaseState.ACTIVE


async def test_no_secret_is_in_the_store(tmp_path: Path) -> None:
    """The bytes of the store, its log included, don't hold the secret."""
    async with living(tmp_path) as house:
        secret = (await house.held(await house.open())).issued.secret["password"].reveal().encode()
        assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())


async def test_an_ended_task_gets_nothing(tmp_path: Path) -> None:
    """The fence refuses before anything is made outside."""
    async with living(tmp_path) as house:
        task = await house.open()
        permit = house.permit(task)
        await house.end(task)
        with pytest.raises(Fenced):
            await house.obtain(task, permit=permit)
        assert ("create", "") not in [(verb, "") for verb, _ in house.engine.calls]


async def test_a_child_of_an_ended_task_gets_nothing(tmp_path: Path) -> None:
    """Ending a task ends what is below it, at any depth."""
    async with living(tmp_path) as house:
        root = await house.open()
        child = await house.open(root)
        grandchild = await house.open(child)
        assert len(await house.end(root)) == 3
        with pytest.raises(Fenced):
            await house.obtain(grandchild)


async def test_a_task_past_its_deadline_gets_nothing_before_anybody_wrote_its_end(tmp_path: Path) -> None:
    """Time that ran out counts as an end that is not written yet, up to the root."""
    async with living(tmp_path) as house:
        root = await house.open(deadline=house.clock.now() + timedelta(minutes=1))
        child = await house.open(root)
        await house.clock.advance(61)
        with pytest.raises(Fenced):
            await house.obtain(child)


async def test_a_waiting_task_gets_nothing_new(tmp_path: Path) -> None:
    """Only an active task is given something."""
    async with living(tmp_path) as house:
        with pytest.raises(Fenced, match="waiting"):
            await house.obtain(await house.open(state=TaskState.WAITING))


async def test_policies_that_changed_since_the_decision_void_it(tmp_path: Path) -> None:
    """A permit of another policy version is stale."""
    async with living(tmp_path) as house:
        task = await house.open()
        with pytest.raises(Stale):
            await house.obtain(task, permit=house.permit(task, policy="an older one"))


async def test_nothing_is_given_while_the_clocks_disagree(tmp_path: Path) -> None:
    """A step of the wall clock stops grants."""
    async with living(tmp_path) as house:
        task = await house.open()
        house.clock.step_wall()
        with pytest.raises(ClockUntrusted):
            await house.obtain(task)


async def test_a_budget_is_spent(tmp_path: Path) -> None:
    """The budget counts leases, and the one above it is refused in the transaction of its intent."""
    scope = Scope(roles=patterns(["*"]), sensitivity=Sensitivity.RESTRICTED, budget=Budget(secrets=1))
    async with living(tmp_path) as house:
        task = await house.open(scope=scope)
        await house.obtain(task)
        with pytest.raises(Exhausted):
            await house.obtain(task)


async def test_a_target_that_is_down_leaves_a_closed_lease(tmp_path: Path) -> None:
    """Nothing was sent, so nothing has to be looked for."""
    async with living(tmp_path) as house:
        house.engine.fail("create")
        with pytest.raises(TargetDown):
            await house.obtain(await house.open())
        (lease,) = await house.leases()
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NEVER_MADE)


async def test_a_refusal_is_cleaned_up_after(tmp_path: Path) -> None:
    """A target that says no may still hold something of that name; it is gone afterwards."""
    async with living(tmp_path) as house:
        house.engine.fail("create", error=Unavailable("the target refused"))
        with pytest.raises(Unavailable):
            await house.obtain(await house.open())
        await house.clock.advance(15)
        await house.reap()
        assert [lease.state for lease in await house.leases()] == [LeaseState.REVOKED]


async def test_a_task_that_ends_during_the_create_gets_nothing_and_nothing_stays(tmp_path: Path) -> None:
    """The create finishes, meets the fence again, and undoes itself at once; no more of it can come."""
    async with living(tmp_path) as house:
        task = await house.open()
        arrived, go = house.engine.hold("create")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_outcome(house.obtain(task)))
            await arrived.wait()
            await house.end(task)
            await house.reap()
            go.set()
        assert isinstance(asking.result(), Fenced)
        assert not house.engine.target.principals
        assert [lease.state for lease in await house.leases()] == [LeaseState.REVOKED]


async def test_who_hangs_up_leaves_no_half_made_lease(tmp_path: Path) -> None:
    """A call goes on when nobody waits for it: the lease is active, unacknowledged, and revoked in time."""
    async with living(tmp_path) as house:
        arrived, go = house.engine.hold("create")
        task = await house.open()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(house.obtain(task))
            await arrived.wait()
            asking.cancel()
        assert asking.cancelled()
        go.set()
        await house.clock.until(lambda: not house.world.in_flight)
        assert [lease.state for lease in await house.leases()] == [LeaseState.ACTIVE]
        await house.clock.advance(31)
        await house.reap()
        assert [lease.close_reason for lease in await house.leases()] == [CloseReason.NOT_ACKNOWLEDGED]
        assert not house.engine.target.principals


async def test_a_key_with_another_body_is_refused(tmp_path: Path) -> None:
    """An idempotency key belongs to one body."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.obtain(task, key="k", digest="one")
        with pytest.raises(KeyReused):
            await house.obtain(task, key="k", digest="two")


async def test_a_key_whose_create_failed_gets_a_new_lease(tmp_path: Path) -> None:
    """Nothing was handed over, so the same request is simply tried again."""
    async with living(tmp_path) as house:
        task = await house.open()
        house.engine.fail("create")
        with pytest.raises(TargetDown):
            await house.obtain(task, key="k")
        await house.clock.advance(1)
        handed = await house.held(task, key="k")
        with pytest.raises(AlreadyAcknowledged) as refused:
            await house.obtain(task, key="k")
        assert refused.value.details["lease"] == handed.lease.id


async def test_the_same_request_at_the_same_time_is_answered_once(tmp_path: Path) -> None:
    """While the first is being answered the second is told to come again."""
    async with living(tmp_path) as house:
        task = await house.open()
        arrived, go = house.engine.hold("create")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(house.obtain(task, key="k"))
            await arrived.wait()
            with pytest.raises(Unavailable):
                await house.obtain(task, key="k")
            go.set()
        assert await house.engine.target.login(first.result().issued) is not None
        assert len(await house.leases()) == 1


async def test_the_end_at_the_target_is_one_window_ahead_and_never_past_the_task(tmp_path: Path) -> None:
    """`until` is a window ahead; `last` the sooner of what was asked for and the deadlines of the chain."""
    async with living(tmp_path) as house:
        now = house.clock.now()
        task = await house.open(deadline=now + timedelta(minutes=30))
        lease = (await house.obtain(task)).lease
        assert (lease.until, lease.last) == (now + timedelta(minutes=2), now + timedelta(minutes=30))
        short = (await house.obtain(task, ttl=timedelta(seconds=50))).lease
        assert (short.until, short.last) == (now + timedelta(seconds=50), now + timedelta(seconds=50))


async def test_a_permit_opens_its_own_role_only(tmp_path: Path) -> None:
    """Using a permit for another role is our own mistake, and is refused."""
    async with living(tmp_path) as house:
        task = await house.open()
        with pytest.raises(RuntimeError):
            await house.obtain(task, role=role(name="readwrite"), permit=house.permit(task))


async def test_a_target_claimed_by_another_installation_gets_nothing(tmp_path: Path) -> None:
    """No principal is made where the claim names somebody else."""
    async with living(tmp_path) as house:
        await house.engine.claim("elsewher", "1")
        with pytest.raises(Conflict):
            await house.obtain(await house.open())
        assert not await house.leases()


async def _outcome(work: object) -> object:
    try:
        return await work  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return error


async def test_an_end_that_is_written_into_the_secret_is_the_lease_s(tmp_path: Path) -> None:
    """No renewal moves it, and the lease ends with it."""
    async with living(tmp_path) as house:
        house.engine.fixed = True
        handed = await house.held(await house.open())
        assert handed.lease.last == handed.lease.until == handed.lease.intended_at + house.role.ttl
        await house.clock.advance(house.role.ttl.total_seconds() + 1)
        await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)
        assert not any(verb == "renew" for verb, _ in house.engine.calls)


async def test_what_is_intended_stands_in_the_row_before_anything_is_made(tmp_path: Path) -> None:
    """Every bound of a lease, by its role, its task and what is asked for; the shortest one counts."""
    async with living(tmp_path) as house:
        now = house.clock.now()
        top = await house.open(deadline=now + timedelta(minutes=30))
        arrived, go = house.engine.hold("create")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(house.obtain(await house.open(top)))
            await arrived.wait()
            (intent,) = await house.leases()
            await house.clock.advance(3)
            go.set()
            handed = await asking
        assert (intent.state, intent.generation, intent.activated_at) == (LeaseState.INTENDED, 1, None)
        assert (intent.intended_at, intent.until, intent.last) == (now, now + timedelta(minutes=2), top.deadline)
        assert (intent.ack_by, intent.due_at) == (now + timedelta(seconds=30), now + timedelta(seconds=20))
        assert intent.handle.facts["create_by"] == micros(now + timedelta(seconds=10))
        assert intent.broker == house.world.broker
        active = await house.lease(intent.id)
        assert active == handed.lease
        made = now + timedelta(seconds=3)
        assert (active.activated_at, active.ack_by, active.due_at) == (made, *[made + timedelta(seconds=30)] * 2)
        assert (active.until, active.last) == (intent.until, intent.last)


@pytest.mark.parametrize(("ttl", "last"), [(None, 3600), (600, 600), (7200, 3600), (60, 60)])
async def test_a_life_is_as_long_as_was_asked_for_and_never_longer_than_the_role_s(
    tmp_path: Path, ttl: int | None, last: int
) -> None:
    """And its first window is never longer than its life."""
    async with living(tmp_path) as house:
        asked = None if ttl is None else timedelta(seconds=ttl)
        lease = (await house.obtain(await house.open(), ttl=asked)).lease
        assert lease.last == house.clock.now() + timedelta(seconds=last)
        assert lease.until == house.clock.now() + timedelta(seconds=min(last, 120))
