"""The hands of the sweep: what they find room for, what they write down, and whose target it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.engines.protocol import Claim
from broker.errors import NotYet, TargetDown
from broker.lifecycle import reconcile
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import Receipt, ReceiptKind
from broker.store import strangers
from ca.errors import Conflict
from fakes.clock import ManualClock
from fakes.filling import Filling, Taken, only_endings
from fakes.target import FakeEngine, FakeTarget, Principal, Unlisted
from fakes.world import House, living

DB = "orders-db"


async def found(house: House) -> list[Receipt]:
    """What was written of principals no open lease stands for."""
    return [one.receipt for one in await house.receipts() if one.receipt.kind is ReceiptKind.FOUND_UNKNOWN]


async def seen(house: House) -> dict[str, int]:
    """The strangers that are known."""
    return dict(await house.world.database.read(lambda tx: strangers.all_of(tx, DB)))


async def test_a_stranger_is_noticed_destroyed_or_forgotten_from_the_reserve(tmp_path: Path) -> None:
    """Counted at each look and written down at the first; what was destroyed or went away is known no more."""
    async with living(tmp_path, wrap=Filling) as house:
        only_endings(house)
        now, world = house.clock.now(), house.world
        name = f"{world.prefix}stranger"
        house.engine.target.principals[name] = Principal("x", now)
        assert await reconcile.names(world, DB) == [name]
        assert [await reconcile.notice(world, DB, name, now) for _ in range(3)] == [1, 2, 3]
        assert await seen(house) == {name: 3}
        (written,) = await found(house)
        assert (written.actor, written.task, written.lease) == (f"broker:{world.broker}", None, None)
        assert written.body == {"target": DB, "principal": name, "done": "quarantined"}
        await reconcile.destroy(world, DB, name, now, None)
        assert (await seen(house), house.engine.target.principals) == ({}, {})
        assert (await found(house))[-1].body == {"target": DB, "principal": name, "done": "destroyed"}
        await reconcile.notice(world, DB, name, now)
        await reconcile.vanished(world, DB, name)
        assert await seen(house) == {}


async def test_what_came_under_the_name_of_a_closed_lease_is_destroyed_in_its_name(tmp_path: Path) -> None:
    """Access first, then the rest; what was not seen to be gone is left to be found again."""
    async with living(tmp_path, wrap=Filling) as house:
        task = await house.open()
        handed = await house.held(task)
        await house.end(task)
        await house.reap()
        name = handed.lease.handle.name
        house.engine.target.principals[name] = Principal("late", handed.lease.last)
        only_endings(house)
        lease, now = await house.lease(handed.lease.id), house.clock.now()
        for verb in ("end_access", "clean_up"):
            house.engine.fail(verb, error=NotYet("still there"))
            with pytest.raises(NotYet):
                await reconcile.destroy(house.world, DB, name, now, lease)
        assert await found(house) == []
        await reconcile.destroy(house.world, DB, name, now, lease)
        (written,) = await found(house)
        assert (written.task, written.lease, written.at) == (task.id, lease.id, now)
        assert house.engine.target.principals == {}


async def test_one_that_somebody_removed_is_over_and_says_why(tmp_path: Path) -> None:
    """Its sessions, if any, are cut; the report has the reason."""
    async with living(tmp_path, wrap=Filling) as house:
        handed = await house.held(await house.open())
        session = await house.engine.target.login(handed.issued)
        house.engine.target.principals.clear()
        only_endings(house)
        gone = await reconcile.missing(house.world, await house.lease(handed.lease.id), house.clock.now())
        assert (gone.state, gone.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)
        assert not await session.answers()


async def test_a_target_of_another_installation_is_given_nothing_until_it_is_ours(tmp_path: Path) -> None:
    """It is remembered as foreign with what was said; once it is free the claim is ours and it is foreign no more."""
    async with living(tmp_path) as house:
        world = house.world
        house.engine.target.claim = Claim(installation="zzzzzzzz", incarnation="one")
        world.claimed.add(DB)
        with pytest.raises(Conflict):
            await reconcile.claim(world, DB)
        assert (set(world.claimed), set(world.foreign)) == (set(), {DB})
        with pytest.raises(Conflict):
            await reconcile.ours(world, DB)
        house.engine.target.claim = None
        await reconcile.ours(world, DB)
        assert (set(world.claimed), dict(world.foreign)) == ({DB}, {})
        claim = house.engine.target.claim
        assert claim == Claim(installation=world.installation.id, incarnation=world.installation.incarnation)
        asked = [verb for verb, _ in house.engine.calls].count("claim")
        await reconcile.ours(world, DB)
        assert [verb for verb, _ in house.engine.calls].count("claim") == asked
        with pytest.raises(TargetDown):
            await reconcile.ours(world, "nowhere")


async def test_an_adoption_is_written_with_what_was_there(tmp_path: Path) -> None:
    """By whom, how many strangers, in which life of the store; and the operator is told their names."""
    async with living(tmp_path) as house:
        now = house.clock.now()
        for name in ("b", "a"):
            await reconcile.notice(house.world, DB, name, now)
        assert await reconcile.adopt(house.world, DB, "operator:ada", now) == ["a", "b"]
        last = (await house.receipts())[-1].receipt
        incarnation = house.world.installation.incarnation
        assert (last.kind, last.actor, last.at) == (ReceiptKind.TARGET_ADOPTED, "operator:ada", now)
        assert last.body == {"target": DB, "strangers": 2, "incarnation": incarnation}
        house.engine.target.claim = Claim(installation="zzzzzzzz", incarnation="one")
        with pytest.raises(Conflict):
            await reconcile.adopt(house.world, DB, "operator:ada", now)
        assert (await house.receipts())[-1].receipt == last


async def test_a_target_that_lists_nothing_says_so(tmp_path: Path) -> None:
    """None is not the empty list."""
    clock = ManualClock()
    for engine, found_there in ((FakeEngine(FakeTarget(clock)), []), (Unlisted(FakeTarget(clock)), None)):
        async with living(tmp_path, clock=clock, engine=engine) as house:
            assert await reconcile.names(house.world, DB) == found_there


async def test_a_claim_and_an_adoption_wait_for_no_grant(tmp_path: Path) -> None:
    """The sweep stands on them, and what it finds must be ended."""
    async with living(tmp_path, wrap=Filling) as house:
        for calls in house.world.targets.values():
            calls.grants = Taken(0)
        assert await reconcile.claim(house.world, DB) is not None
        assert await reconcile.adopt(house.world, DB, "operator:ada", house.clock.now()) == []
