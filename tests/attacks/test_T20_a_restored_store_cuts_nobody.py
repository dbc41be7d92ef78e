"""T20: a store that was put back from a copy remembers less than was done: it observes before it destroys.

The copy is the store's own file, taken in the middle of a task; what came after it is known to the target alone.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from broker.lifecycle import configured, reconcile
from broker.lifecycle.acknowledge import acknowledge
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.store import installation
from ca.errors import Conflict
from fakes.clock import ManualClock
from fakes.front import OPERATOR, call, front
from fakes.target import FakeEngine, FakeTarget
from fakes.world import AGENT, House, living


@dataclass
class Past:
    """What happened before the store was put back, and a broker over what it is then."""

    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    engine: FakeEngine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = FakeEngine(FakeTarget(self.clock))

    def copy(self) -> None:
        """Take a backup of the store, which nobody holds."""
        shutil.copy(self.folder / "broker.db", self.folder / "backup")

    @asynccontextmanager
    async def life(self) -> AsyncIterator[House]:
        async with living(self.folder, clock=self.clock, engine=self.engine) as house:
            yield house

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[House]:
        """The backup in its place, and the past of it known to be another."""
        for left in self.folder.glob("broker.db*"):
            left.unlink()
        shutil.copy(self.folder / "backup", self.folder / "broker.db")
        async with self.life() as house:
            await house.world.database.write(lambda tx: installation.begin_incarnation(tx, self.clock.now()))
        async with self.life() as house:
            yield house


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """Nothing has happened yet."""
    return Past(tmp_path)


async def test_what_was_renewed_and_received_since_is_not_cut(past: Past) -> None:
    """The copy says it ran out and was never received; it was renewed, and is in use: it is renewed again."""
    async with past.life() as house:
        task = await house.open()
        renewed, received = await house.held(task), await house.obtain(task)
    past.copy()
    async with past.life() as house:
        await acknowledge(house.world, task.id, received.lease.id, str(AGENT), past.clock.now())
        for _ in range(30):
            await past.clock.advance(10)
            await house.reap()
        sessions = [await past.engine.target.login(one.issued) for one in (renewed, received)]
    async with past.restored() as house:
        for _ in range(20):
            await house.reap()
            await house.sweep()
            await past.clock.advance(10)
        assert all([session is not None and await session.answers() for session in sessions])
        assert {lease.state for lease in await house.leases()} == {LeaseState.ACTIVE}
        await house.end(await house.task(task.id))
        await house.reap()
        assert not past.engine.target.principals


async def test_what_ended_since_is_closed_and_what_came_since_waits_for_an_operator(past: Past) -> None:
    """A lease whose principal is gone is closed as such; a principal without a lease is written down, and left."""
    async with past.life() as house:
        task = await house.open()
        ended = await house.held(task)
    past.copy()
    async with past.life() as house:
        later = await house.held(await house.open())
        await house.end(task)
        await house.reap()
    async with past.restored() as house:
        for _ in range(3):
            swept = await house.sweep()
            await house.reap()
        lease = await house.lease(ended.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)
        assert (swept.quarantined, swept.destroyed) == ([later.lease.handle.name], [])
        assert swept.since is not None
        assert await past.engine.target.login(later.issued) is not None
        found = await configured.check(house.world, house.role.target)
        assert [one.name for one in found if not one.well] == []  # a fake proves nothing
        told = await reconcile.adopt(house.world, house.role.target, "operator:ada", past.clock.now())
        assert list(told) == [later.lease.handle.name]
        await house.sweep()
        assert not past.engine.target.principals
        assert ReceiptKind.TARGET_ADOPTED in [entry.receipt.kind for entry in await house.receipts()]


async def test_after_the_adoption_what_ran_out_is_ended_again(past: Past) -> None:
    """The quarantine is over: a secret that nobody received is revoked in time, as ever."""
    async with past.life() as house:
        await house.obtain(await house.open())
    past.copy()
    async with past.restored() as house:
        await past.clock.advance(40)
        await house.reap()
        assert [lease.state for lease in await house.leases()] == [LeaseState.ACTIVE]
        await reconcile.adopt(house.world, house.role.target, "operator:ada", past.clock.now())
        await past.clock.advance(20)
        await house.reap()
        assert [lease.close_reason for lease in await house.leases()] == [CloseReason.NOT_ACKNOWLEDGED]


async def test_nothing_outlives_its_last_moment_in_quarantine(past: Past) -> None:
    """What no renewal may pass is passed by none, whatever the store forgot."""
    async with past.life() as house:
        handed = await house.held(await house.open())
    past.copy()
    async with past.restored() as house:
        await past.clock.advance((handed.lease.last - past.clock.now()) / timedelta(seconds=1) + 1)
        await house.reap()
        assert [lease.state for lease in await house.leases()] == [LeaseState.REVOKED]


async def test_operators_adopt_a_target(tmp_path: Path) -> None:
    """By verb, after a look; another installation's target is refused, said so in the list, and checked no further."""
    async with front(tmp_path) as found:
        house, target = found.house, found.house.role.target
        async with found.session(OPERATOR) as session:
            status, body = await call(session, "POST", f"/v1/targets/{target}/adopt", {"dry_run": True})
            assert (status, body) == (200, {"target": target, "adopted": False, "strangers": []})
            assert (await call(session, "POST", "/v1/targets/nothing/adopt", {}))[0] == 404
            house.engine.target.claim = None
            await house.engine.claim("elsewher", "1")
            house.world.claimed.clear()
            with pytest.raises(Conflict):
                await reconcile.ours(house.world, target)
            _, body = await call(session, "GET", "/v1/targets")
            assert "another installation" in body["items"][0]["trouble"]
            (finding,) = await configured.check(house.world, target)
            assert (finding.name, finding.well) == ("claim", False)
            assert (await call(session, "POST", f"/v1/targets/{target}/adopt", {}))[0] == 409
        async with found.session(found.agent()) as session:
            assert (await call(session, "POST", f"/v1/targets/{target}/adopt", {}))[0] == 403
