"""T19: two installations on one target, and a store that was restored: nobody destroys what is not surely his."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import TargetDown
from broker.lifecycle import reconcile
from broker.model.lease import LeaseState
from broker.model.receipt import ReceiptKind
from broker.store import installation
from ca.errors import Conflict
from fakes.clock import ManualClock
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget, Principal
from fakes.world import living
from servers.postgres_place import postgres_place

pytestmark = pytest.mark.usefixtures("on_every_store")


async def test_another_installation_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    """It gets no claim, makes nothing and sweeps nothing away."""
    clock = ManualClock()
    target = FakeTarget(clock)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        living(tmp_path / "a", clock=clock, engine=FakeEngine(target)) as first,
        living(tmp_path / "b", clock=clock, engine=FakeEngine(target)) as second,
    ):
        handed = await first.held(await first.open())
        with pytest.raises(Conflict):
            await second.obtain(await second.open())
        for _ in range(3):
            assert (await second.sweep()).trouble is not None
        assert await target.login(handed.issued) is not None


async def test_the_same_on_a_real_target() -> None:
    """PostgreSQL: the claim is a role's comment, and the first one stands."""
    async with postgres_place() as place:
        await place.engine.claim("aaaaaaaa", "one")
        with pytest.raises(Conflict, match="aaaaaaaa"):
            await place.engine.claim("bbbbbbbb", "one")


async def test_a_stranger_is_watched_and_goes_when_it_is_surely_ours(tmp_path: Path) -> None:
    """Once is quarantine, with a receipt; seen twice at a target of this very life it is destroyed."""
    async with living(tmp_path) as house:
        name = house.world.prefix + "zzzzzzzzzzzzzzzzzzzz"
        house.engine.target.principals[name] = Principal("x", house.clock.now() + timedelta(hours=1))
        assert (await house.sweep()).quarantined == [name]
        assert name in house.engine.target.principals
        assert (await house.sweep()).destroyed == [name]
        assert not house.engine.target.principals
        said = [e.receipt.body["done"] for e in await house.receipts() if e.receipt.kind is ReceiptKind.FOUND_UNKNOWN]
        assert said == ["quarantined", "destroyed"]


async def test_one_that_can_t_be_destroyed_shields_no_other(tmp_path: Path) -> None:
    """The target refuses to end the first of two, again and again: the second goes all the same."""
    async with living(tmp_path) as house:
        names = [house.world.prefix + letter * 20 for letter in "yz"]
        for name in names:
            house.engine.target.principals[name] = Principal("x", house.clock.now() + timedelta(hours=1))
        await house.sweep()
        house.engine.fail("end_access", error=Conflict("others depend on it"))
        swept = await house.sweep()
        assert (swept.destroyed, names[0] in str(swept.trouble)) == (names[1:], True)
        assert set(house.engine.target.principals) == {names[0]}
        assert (await house.sweep()).destroyed == names[:1]


async def test_after_a_restore_nothing_is_destroyed_until_an_operator_adopts(tmp_path: Path) -> None:
    """The store forgot leases that live: their principals are strangers, and stay."""
    clock = ManualClock()
    target = FakeTarget(clock)
    async with living(tmp_path, clock=clock, engine=FakeEngine(target)) as house:
        await house.sweep()
        name = house.world.prefix + "zzzzzzzzzzzzzzzzzzzz"
        target.principals[name] = Principal("x", clock.now() + timedelta(hours=1))
        await house.world.database.write(lambda tx: installation.begin_incarnation(tx, clock.now()))
    async with living(tmp_path, clock=clock, engine=FakeEngine(target)) as restored:
        for _ in range(5):
            assert (await restored.sweep()).quarantined == [name]
        await reconcile.adopt(restored.world, restored.role.target, "ada", restored.clock.now())
        assert (await restored.sweep()).destroyed == [name]


async def test_a_stranger_that_left_is_forgotten(tmp_path: Path) -> None:
    """Coming back it begins anew."""
    async with living(tmp_path) as house:
        name = house.world.prefix + "zzzzzzzzzzzzzzzzzzzz"
        principal = Principal("x", house.clock.now() + timedelta(hours=1))
        house.engine.target.principals[name] = principal
        await house.sweep()
        del house.engine.target.principals[name]
        await house.sweep()
        house.engine.target.principals[name] = principal
        assert (await house.sweep()).quarantined == [name]


async def test_what_a_closed_lease_left_is_destroyed_at_once(tmp_path: Path) -> None:
    """A create that arrived after everybody had given it up (T8)."""
    async with living(tmp_path) as house:
        house.engine.fail("create")
        with pytest.raises(TargetDown):
            await house.obtain(await house.open())
        (lease,) = await house.leases()
        late = Principal("x", house.clock.now() + timedelta(hours=1))
        house.engine.target.principals[lease.handle.name] = late
        await house.clock.advance(1)
        assert (await house.sweep()).destroyed == [lease.handle.name]
        assert not house.engine.target.principals


async def test_a_principal_somebody_removed_closes_its_lease(tmp_path: Path) -> None:
    """The other way round: the store does not go on claiming it."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        session = await house.engine.target.login(handed.issued)
        house.engine.target.principals.clear()
        assert (await house.sweep()).missing == [handed.lease.handle.name]
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED
        assert not await session.answers()


async def test_a_sweep_leaves_what_is_just_being_made(tmp_path: Path) -> None:
    """An intent whose create is under way is no stranger and nothing missing."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        swept = await house.sweep()
        assert (swept.destroyed, swept.quarantined, swept.missing) == ([], [], [])
        assert await house.engine.target.login(handed.issued) is not None
