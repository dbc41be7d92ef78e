"""Several brokers over one PostgreSQL do the work once, take over what a dead one left, and answer as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import AlreadyAcknowledged, KeyReused
from broker.events.feed import Feed
from broker.lifecycle.acknowledge import acknowledge
from broker.loops.claims import BEAT, GRACE, Claims
from broker.loops.reaper import Reaper
from broker.model.lease import LeaseState
from broker.model.scope import Budget
from broker.store import installation
from ca.errors import Exhausted, Problem, Unavailable
from ca.runtime.bell import SharedWake, open_bell
from ca.runtime.database import open_database
from ca.runtime.past import Past
from ca.runtime.postgres_session import SETTINGS
from ca.runtime.postgres_unit import FAILURES
from fakes.clock import ManualClock
from fakes.stores import database_of, postgres_address
from fakes.target import FakeEngine, FakeTarget
from fakes.world import AGENT, House, living, settle
from servers.postgres import postgres

Pair = tuple[House, House]


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two brokers, each with a connection and an engine of its own, one store and one target."""
    clock, address = ManualClock(), await postgres_address(tmp_path)
    target = FakeTarget(clock)
    async with (
        living(tmp_path, clock=clock, engine=FakeEngine(target), store=open_database(address)) as one,
        living(tmp_path, clock=clock, engine=FakeEngine(target), store=open_database(address)) as other,
    ):
        for house in (one, other):
            house.reaper = Reaper(house.world, Claims(exclusive=False))
        yield one, other


async def beats(house: House, seconds: int) -> None:
    """Only this one lives on."""
    for _ in range(seconds):
        await house.reaper.claims.tick(house.world)
        await house.clock.advance(BEAT)


async def test_a_retry_at_another_broker_is_answered_as_at_the_first(two: Pair) -> None:
    """Before the acknowledgement the secret is made anew, after it the answer is no, and another body is refused."""
    one, other = two
    task = await one.open()
    first = await one.obtain(task, key="k")
    again = await other.obtain(task, key="k")
    assert (again.lease.id, again.lease.generation) == (first.lease.id, 2)
    assert again.issued.secret["password"] != first.issued.secret["password"]
    with pytest.raises(KeyReused):
        await other.obtain(task, key="k", digest="another")
    await acknowledge(other.world, task.id, first.lease.id, str(AGENT), one.clock.now())
    for house in two:
        with pytest.raises(AlreadyAcknowledged):
            await house.obtain(task, key="k")


async def test_a_retry_waits_for_a_call_under_way_and_outlives_its_broker(two: Pair) -> None:
    """While the first may be at it: ask again. When it has died: another lease, and nothing is left of the first."""
    one, other = two
    task = await one.open()
    await beats(one, 1)
    entered, go = one.engine.hold("create")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(_outcome(one, task, "k"))
        await asyncio.wait_for(entered.wait(), 60)
        with pytest.raises(Unavailable, match="being answered"):
            await other.obtain(task, key="k")
        await beats(other, 13)  # the first is frozen in the middle of its create
        await other.reap()
        second = await other.held(task, key="k")
        go.set()
        await one.clock.until(first.done)
    assert isinstance(first.result(), Problem)
    for _ in range(4):
        for house in two:
            await house.reap()
        await other.clock.advance(20)
    assert set(one.engine.target.principals) == {second.lease.handle.name}
    assert [lease.id for lease in await one.leases() if not lease.is_closed] == [second.lease.id]


async def _outcome(house: House, task: object, key: str) -> object:
    try:
        return await house.obtain(task, key=key)  # type: ignore[arg-type]
    except Problem as problem:
        return problem


async def test_a_broker_ends_what_it_gave_and_the_others_leave_it_alone(two: Pair) -> None:
    """Neither does the other's work, though both look; what is left lying for a moment is anybody's."""
    one, other = two
    task = await one.open()
    ours, theirs = await one.held(task), await other.held(task)
    await one.end(task)
    one.engine.calls.clear(), other.engine.calls.clear()
    await one.reap()
    assert [(await one.lease(given.lease.id)).is_closed for given in (ours, theirs)] == [True, False]
    await other.reap()
    assert (await one.lease(theirs.lease.id)).is_closed
    assert len(one.engine.calls) == len(other.engine.calls)

    task = await one.open()
    left = await one.held(task)
    await other.end(task)
    await other.reap()
    assert (await one.lease(left.lease.id)).state is LeaseState.ACTIVE
    await one.clock.advance(GRACE.total_seconds() + 0.1)
    await other.reap()
    assert (await one.lease(left.lease.id)).state is LeaseState.REVOKED


async def test_a_lease_follows_the_broker_that_renews_it(two: Pair) -> None:
    """The one that made it is gone; who took it over goes on with it at once."""
    one, other = two
    handed = await one.held(await one.open())
    await one.clock.advance(70)
    await other.reap()
    renewed = await one.lease(handed.lease.id)
    assert (renewed.broker, renewed.until > handed.lease.until) == (other.world.broker, True)


async def test_both_may_drain_the_same_lease(two: Pair) -> None:
    """It is ended once in the record, whoever was there first."""
    one, other = two
    task = await one.open()
    for _ in range(20):
        await one.held(task)
    await one.end(task)
    await one.clock.advance(5)
    for _ in range(3):
        await asyncio.gather(one.reap(), other.reap())
        await one.clock.advance(5)
    assert all(lease.is_closed for lease in await one.leases())
    assert not one.engine.target.principals
    closed = [entry for entry in await one.receipts() if entry.receipt.kind == "lease.closed"]
    assert len(closed) == 20


@pytest.mark.parametrize("round_", range(4))
async def test_a_budget_is_not_spent_twice_at_two_brokers(two: Pair, round_: int) -> None:
    """Two children of one task ask at the same moment for its last secret (T22)."""
    one, other = two
    root = await one.open()
    bounded = await one.open(scope=replace(root.scope, budget=Budget(secrets=1 + round_)))
    children = [await one.open(bounded) for _ in range(6)]
    answers = await asyncio.gather(
        *(house.obtain(child) for child, house in zip(children, (one, other) * 3, strict=True)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert (len(answers) - len(refused), {type(answer) for answer in refused}) == (1 + round_, {Exhausted})


async def test_events_are_told_at_every_broker_in_one_order(two: Pair) -> None:
    """And soon: a commit at one wakes the other's feed, and its reaper when a task ended."""
    one, other = two
    feeds = [Feed(house.world.database, ended=house.world.reaper.set) for house in two]
    for feed in feeds:
        await feed.tick(one.clock.now())
    begin, wake = feeds[0].epoch, SharedWake()
    async with (
        open_bell(other.world.database, "broker", wake.heard, one.clock),
        open_bell(one.world.database, "broker", lambda: None, one.clock) as pull,
    ):
        await _until(one, wake)  # the bell is connected
        opened = [(house, await house.open()) for house in two for _ in range(8)]
        await asyncio.gather(*(house.end(task) for house, task in opened))
        pull()
        await _until(one, wake)
    for feed in feeds:
        await feed.tick(one.clock.now())
    told = []
    for feed in feeds:
        stream, numbers = feed.stream(begin, None), []
        async for event in stream:
            numbers.append((event.epoch, event.task))  # type: ignore[union-attr]
            if len(numbers) == 16:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        told.append(numbers)
    assert told[0] == told[1]
    assert [epoch.n - begin.n for epoch, _ in told[0]] == list(range(1, 17))  # type: ignore[union-attr]


async def _until(house: House, wake: SharedWake) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wake.wait())
        await house.clock.until(waiting.done, step=0.01)


async def test_a_broker_that_is_frozen_in_a_transaction_holds_nobody_up_for_long(tmp_path: Path) -> None:
    """It holds the row every event takes its number from; PostgreSQL ends it, and nobody hears of an error."""
    address = await postgres_address(tmp_path)
    async with living(tmp_path, store=open_database(address)) as house, postgres() as server:
        frozen = await server.connect(database_of(address), server_settings=SETTINGS)
        await frozen.execute("BEGIN; UPDATE epoch SET n = n + 1")
        opened = [await house.open() for _ in range(3)]
        await asyncio.gather(*(house.end(task) for task in opened))
        with pytest.raises(FAILURES):
            await frozen.execute("COMMIT")
        frozen.terminate()
        assert [event.epoch.n for event in await house.events() if event.epoch is not None] == [1, 2, 3]


@pytest.mark.parametrize("round_", range(8))
async def test_several_that_start_at_once_make_the_tables_once(tmp_path: Path, round_: int) -> None:
    """Whoever comes second finds them, also in the middle of the first one's making."""
    address = await postgres_address(tmp_path / str(round_))
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_database(address)) for _ in range(5)]
        await asyncio.gather(*(settle(store) for store in stores))
        now = ManualClock().now()
        past = Past(names=frozenset("a"), next="a")
        found = await asyncio.gather(*(store.write(lambda tx: installation.settle(tx, now, past)) for store in stores))
    assert len({one.incarnation for one in found}) == 1
