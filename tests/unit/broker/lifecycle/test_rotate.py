"""The password we log in with ourselves: another one, and none lost wherever somebody dies on the way (C9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import NotPossible, OutcomeUnknown, TargetDown
from broker.lifecycle import rotate
from broker.loops.rotations import Rotations
from broker.model.receipt import ReceiptKind
from broker.store import sealed
from ca.errors import NotFound, Problem, Unavailable
from ca.runtime.secret import Secret
from ca.seal import AesSeal
from fakes.accounts import FakeAccounts
from fakes.clock import ManualClock
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living, role

pytestmark = pytest.mark.usefixtures("on_every_store")

SEAL = AesSeal(bytes(32))
CLOCK = ManualClock()
ROLE = role(engine="fake")


@asynccontextmanager
async def rotating(folder: Path, accounts: FakeAccounts, **more: Any) -> AsyncIterator[House]:
    """A broker whose one target has accounts; a second one over the same is a restart, with the settings' password."""
    accounts.log_in_with(None)
    async with living(folder, clock=accounts.clock, engine=accounts, the_role=ROLE, seal=SEAL, **more) as house:
        yield house


@pytest.fixture
def accounts() -> FakeAccounts:
    """What is there whatever the broker believes."""
    return FakeAccounts(ManualClock())


async def resting(house: House, name: str) -> Secret | None:
    """What the vault holds."""
    found = await house.world.database.read(lambda tx: sealed.newest(tx, SEAL, f"{name}/orders-db/root"))
    return None if found is None else found[1]


async def settled(house: House) -> None:
    """A minute of ticks."""
    loop = Rotations(house.world)
    for _ in range(8):
        await house.clock.advance(16)
        await loop.tick(house.clock.now())


async def well(house: House, accounts: FakeAccounts) -> bool:
    """We are let in, by what rests, and nothing is pending."""
    current = await resting(house, "own")
    known = accounts.named if current is None else current.reveal()
    return accounts.passwords["root"] == accounts.ours == known and await resting(house, "next") is None


async def test_it_is_rotated(tmp_path: Path, accounts: FakeAccounts) -> None:
    """Another password is in force, sealed; whoever was in by the former is out; the receipts show no password."""
    async with rotating(tmp_path, accounts) as house:
        thief = accounts.log_in("root", "named")
        now = house.clock.now()
        assert await rotate.rotate(house.world, "orders-db", now, actor="operator:eve") == 1
        assert await rotate.rotate(house.world, "orders-db", now) == 2
        assert await well(house, accounts)
        assert thief is not None
        assert (thief.open, accounts.log_in("root", "named")) == (False, None)
        told = [entry.receipt for entry in await house.receipts() if entry.receipt.kind is ReceiptKind.TARGET_ROTATED]
        assert [one.body["done"] for one in told] == ["begun", "rotated"] * 2
        assert told[0].actor == "operator:eve"
        assert accounts.passwords["root"] not in repr(told)
        versions = await house.world.database.read(lambda tx: sealed.versions(tx, "own/orders-db/root"))
        assert [(one.number, one.destroyed_at is None) for one in versions] == [(2, True), (1, False)]


@pytest.mark.parametrize("verb", ["change_password", "opens", "cut_sessions"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("died", [False, True])
async def test_what_failed_half_way_is_finished(
    tmp_path: Path, accounts: FakeAccounts, verb: str, times: int, *, after: bool, died: bool
) -> None:
    """By the same broker or the next one, which begins with the password of the settings."""
    accounts.fail(verb, after=after, times=times)
    async with rotating(tmp_path, accounts) as house:
        with pytest.raises(Problem):
            await rotate.rotate(house.world, "orders-db", house.clock.now())
        candidate = await resting(house, "next")
        assert candidate is not None
        if not died:
            await settled(house)
            assert await well(house, accounts)
    async with rotating(tmp_path, accounts) as house:
        await settled(house)
        assert await well(house, accounts)
        assert accounts.passwords["root"] == candidate.reveal()


class Dies(Exception):
    """A death at a commit."""


@pytest.mark.parametrize("last", [1, 2])
async def test_a_death_at_a_commit_is_mended_by_the_next_start(
    tmp_path: Path, accounts: FakeAccounts, last: int
) -> None:
    """After the change and before its record: the candidate opens, and is adopted without another change."""
    async with rotating(tmp_path, accounts) as house:
        database, writes = house.world.database, 0

        class Mortal:
            read = database.read

            @staticmethod
            async def write(unit: Any, *, ending: bool = False) -> Any:
                nonlocal writes
                writes += 1
                if writes == last:
                    raise Dies
                return await database.write(unit, ending=ending)

        with pytest.raises(Dies):
            await rotate.rotate(replace(house.world, database=Mortal()), "orders-db", house.clock.now())
        accounts.done.clear()
    async with rotating(tmp_path, accounts) as house:
        await settled(house)
        assert await well(house, accounts)
        assert accounts.done == ([] if last == 1 else ["opens", "cut_sessions"])


async def test_two_brokers_rotate_once(tmp_path: Path, accounts: FakeAccounts) -> None:
    """The time has come for both; the second finds it done, and logs in with the first one's."""
    day = timedelta(days=1)
    async with rotating(tmp_path, accounts, rotate_every={"orders-db": day}) as house:
        first, second = Rotations(house.world), Rotations(house.world)
        await first.tick(house.clock.now())
        chosen = accounts.passwords["root"]
        accounts.log_in_with(None)  # as the second one still does
        await second.tick(house.clock.now())
        assert accounts.passwords["root"] == accounts.ours == chosen
        await house.clock.advance(day.total_seconds())
        await second.tick(house.clock.now())
        assert accounts.passwords["root"] != chosen
        assert await well(house, accounts)


async def test_a_broker_that_lost_the_race_to_adopt_takes_what_is_there(tmp_path: Path, accounts: FakeAccounts) -> None:
    """It rotated with a candidate that another one finished meanwhile, and replaced."""
    async with rotating(tmp_path, accounts) as house:
        world, now, cut = house.world, house.clock.now(), accounts.cut_sessions

        async def meanwhile(account: str) -> int:
            accounts.cut_sessions = cut  # type: ignore[method-assign]
            await rotate.carry_on(world, "orders-db", now)
            await rotate.rotate(world, "orders-db", now)
            return await cut(account)

        accounts.cut_sessions = meanwhile  # type: ignore[method-assign]
        assert await rotate.rotate(world, "orders-db", now) == 2
        assert await well(house, accounts)


async def test_its_owner_may_set_one_by_hand(tmp_path: Path, accounts: FakeAccounts) -> None:
    """Then what the settings name counts again, once an operator says so; other brokers follow."""
    async with rotating(tmp_path, accounts) as house:
        now, other = house.clock.now(), Rotations(house.world)
        await rotate.rotate(house.world, "orders-db", now)
        await other.tick(now)
        accounts.passwords["root"] = accounts.named = "by hand"
        with pytest.raises(TargetDown):
            await rotate.rotate(house.world, "orders-db", now)
        await rotate.forget(house.world, "orders-db", now, actor="operator:eve")
        assert await well(house, accounts)
        accounts.log_in_with(Secret("stale"))
        await other.tick(now)
        assert accounts.ours == "by hand"
        await house.clock.advance(16)  # the breaker looks again
        assert await rotate.rotate(house.world, "orders-db", house.clock.now()) == 1


async def test_what_can_t_be_rotated_is_said(tmp_path: Path, accounts: FakeAccounts) -> None:
    """No such target, a kind without the power, no sealing key: nothing is begun."""
    async with rotating(tmp_path, accounts) as house:
        now, plain = house.clock.now(), FakeEngine(FakeTarget(CLOCK))
        house.world.engines["plain"] = plain  # type: ignore[index]
        for target, error in (("nowhere", NotFound), ("plain", NotPossible)):
            with pytest.raises(error):
                await rotate.rotate(house.world, target, now)
        with pytest.raises(Unavailable, match=r"keys\.seal"):
            await rotate.rotate(replace(house.world, seal=None), "orders-db", now)
        assert accounts.done == []


async def test_a_change_that_arrives_late_changes_nothing(tmp_path: Path, accounts: FakeAccounts) -> None:
    """It was given up, done again, and sets the same password when it comes."""
    async with rotating(tmp_path, accounts) as house:
        accounts.fail("change_password", error=OutcomeUnknown("frozen"))
        with pytest.raises(OutcomeUnknown):
            await rotate.rotate(house.world, "orders-db", house.clock.now())
        frozen = await resting(house, "next")
        await settled(house)
        assert frozen is not None
        accounts.passwords["root"] = frozen.reveal()
        assert await well(house, accounts)


async def test_what_refuses_is_asked_once(tmp_path: Path, accounts: FakeAccounts) -> None:
    """Before anything was sent: given up, told once, and asked again when its settings were read anew."""
    async with rotating(tmp_path, accounts, rotate_every={"orders-db": timedelta(days=1)}) as house:
        accounts.fail("change_password", error=NotPossible("not as it is set up"), times=1)
        loop = Rotations(house.world)
        for _ in range(5):
            await loop.tick(house.clock.now())
        assert accounts.done.count("change_password") == 1
        assert await well(house, accounts)
        told = [entry.receipt.body["done"] for entry in await house.receipts()]
        assert told == ["begun", "given up"]
        loop._refused.clear()  # as another engine would not be the one that refused
        await loop.tick(house.clock.now())
        assert await resting(house, "own") is not None
