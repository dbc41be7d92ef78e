"""A reload of targets ends nothing by itself: what would is held, denies what is new, and waits for a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.engines.protocol import Claim, Lent
from broker.lifecycle.configured import Configuration, Configured
from broker.lifecycle.reload import Reloading, has_moved
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.role import Role
from broker.policy.source import parse
from ca.errors import Conflict, Denied, Malformed
from fakes.front import ROLE, call, front, obtained, opened
from fakes.lent_account import shelf
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living, role

pytestmark = pytest.mark.usefixtures("on_every_store")

READ, WRITE = role(engine="postgres"), role(engine="postgres", name="writer")
MINUTE = 60.0


@dataclass(frozen=True)
class Place:
    """The settings of an engine."""

    host: str = "db-1"
    connections: int = 4
    kind: str = "fake"


@dataclass(slots=True)
class Pretended(Configured):
    """Opens engines of the test, each place its own."""

    servers: dict[str, FakeEngine] = field(default_factory=dict)
    opening: asyncio.Event = field(default_factory=asyncio.Event)
    slow: asyncio.Event | None = None

    async def _open(self, name: str, said: Configuration) -> Any:
        self.opening.set()
        if self.slow is not None:
            await self.slow.wait()
        return self.servers.setdefault(said.engine.host, FakeEngine(FakeTarget(self.lent.clock)))


@dataclass
class Here:
    """A broker whose settings a test writes."""

    house: House
    configured: Pretended
    reloading: Reloading
    settings: dict[str, Configuration]
    counted: list[str]

    def write(self, *roles: Role, place: Place = Place()) -> None:
        """What stands in the settings from now on."""
        self.settings.clear()
        for one in roles:
            said = self.settings.setdefault(one.target, Configuration(engine=place, roles={}))
            self.settings[one.target] = Configuration(engine=place, roles={**said.roles, one.full_name: one})

    def there(self, host: str = "db-1") -> Mapping[str, Any]:
        """The principals at one server."""
        return self.configured.servers[host].target.principals

    async def lived(self, minutes: int) -> None:
        """Time goes by, and the broker does what is due."""
        for _ in range(minutes):
            await self.house.clock.advance(MINUTE)
            await self.house.reap()
            await self.reloading.tick()


@asynccontextmanager
async def here(folder: Path) -> AsyncIterator[Here]:
    """Two roles of one target are configured."""
    async with AsyncExitStack() as stack:
        house: House
        settings: dict[str, Configuration] = {}
        configured: Pretended | None = None
        house = await stack.enter_async_context(living(folder, the_role=READ))
        configured = Pretended(Lent(clock=house.clock), stack)
        configured.engines, configured.targets = house.world.engines, house.world.targets  # type: ignore[assignment]
        configured.roles = house.world.roles  # type: ignore[assignment]
        counted: list[str] = []
        object.__setattr__(house.world, "leaving", configured.leaving)
        reloading = Reloading(house.world, configured, lambda: settings, counted.append)
        found = Here(house, configured, reloading, settings, counted)
        found.write(READ, WRITE)
        await reloading.again()
        yield found


async def test_what_nobody_holds_changes_at_once(tmp_path: Path) -> None:
    """A role taken out, another put in, the number of connections: nothing is held."""
    async with here(tmp_path) as at:
        at.write(READ, role(engine="postgres", name="third"), place=Place(connections=9))
        assert (await at.reloading.again()).held == ()
        assert set(at.house.world.roles) == {"orders-db/readonly", "orders-db/third"}
        assert at.counted == ["taken", "taken"]


@pytest.mark.parametrize("kind", ["role", "target", "moved"])
async def test_what_would_end_secrets_is_held(tmp_path: Path, kind: str) -> None:
    """A role, a whole target, a target at another host: what lives is renewed as before, hour after hour."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        lease = (await at.house.held(task, role=WRITE)).lease
        if kind == "role":
            at.write(READ)
        elif kind == "target":
            at.write()
        else:
            at.write(READ, WRITE, place=Place(host="db-2"))
        (held,) = (await at.reloading.again()).held
        assert (held.role, held.leases, held.tasks) == ("orders-db/writer", 1, 1)
        assert "orders-db/writer" in at.configured.leaving
        await at.lived(20)
        kept = await at.house.lease(lease.id)
        assert (kept.state, lease.handle.name in at.there()) == (LeaseState.ACTIVE, True)
        assert kept.until > at.house.clock.now()
        assert at.counted == ["taken", "held"]
        await at.house.end(task)
        await at.lived(1)
        assert at.there() == {}
        assert at.reloading.held == ()
        assert "orders-db/writer" not in at.configured.leaving
        assert ("orders-db/writer" in at.house.world.roles) is (kind == "moved")
        assert set(at.configured.servers) == ({"db-1", "db-2"} if kind == "moved" else {"db-1"})


@pytest.mark.parametrize("kind", ["role", "moved"])
async def test_a_confirmed_one_ends_them_by_the_operator_s_word(tmp_path: Path, kind: str) -> None:
    """At the place where they are, verified there, and only then the new settings hold."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        names = [(await at.house.held(task, role=WRITE)).lease.handle.name for _ in range(3)]
        other = (await at.house.held(task)).lease
        at.write(READ, *([WRITE] if kind == "moved" else []), place=Place("db-2" if kind == "moved" else "db-1"))
        assert await at.reloading.again()
        told = await at.reloading.again("operator:ada")
        assert told.ending == (4 if kind == "moved" else 3)
        await at.lived(1)
        assert not set(names) & set(at.there())
        closed = [lease for lease in await at.house.leases() if lease.role == "orders-db/writer"]
        assert {(lease.state, lease.close_reason) for lease in closed} == {(LeaseState.REVOKED, CloseReason.OPERATOR)}
        assert (other.handle.name in at.there()) is (kind == "role")
        receipts = [one.receipt for one in await at.house.receipts()]
        revoked = {one.actor for one in receipts if one.kind is ReceiptKind.LEASE_REVOKING}
        assert revoked == {"operator:ada"}
        assert at.reloading.held == ()
        assert (await at.house.task(task.id)).is_live


async def test_a_target_that_is_down_keeps_a_confirmed_reload_waiting(tmp_path: Path) -> None:
    """Nothing is forgotten at the old place: its engine stays until the last is verified gone there."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        lease = (await at.house.held(task, role=WRITE)).lease
        at.configured.servers["db-1"].fail("end_access", times=3)
        at.write(READ, WRITE, place=Place(host="db-2"))
        await at.reloading.again("operator:ada")
        await at.house.reap()
        await at.reloading.tick()
        assert (lease.handle.name in at.there(), len(at.reloading.held)) == (True, 1)
        await at.lived(5)
        assert (at.there(), at.reloading.held) == ({}, ())
        assert at.house.world.engines["orders-db"] is at.configured.servers["db-2"]


async def test_one_that_comes_back_is_held_no_more(tmp_path: Path) -> None:
    """The file is mended: the role is given again, and nothing happened to anybody."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        await at.house.held(task, role=WRITE)
        at.write(READ)
        assert (await at.reloading.again()).held
        at.write(READ, WRITE)
        assert (await at.reloading.again()).held == ()
        assert at.configured.leaving == set()
        await at.house.held(task, role=WRITE)


async def test_a_file_that_can_t_be_meant_changes_nothing(tmp_path: Path) -> None:
    """Neither what is in force nor what is held."""
    async with here(tmp_path) as at:
        await at.house.held(await at.house.open(), role=WRITE)
        at.write(READ)
        held = (await at.reloading.again()).held

        def refuse() -> Any:
            raise Malformed("not a target")

        at.reloading.read = refuse
        with pytest.raises(Malformed):
            await at.reloading.again("operator:ada")
        assert (at.reloading.held, at.counted[-1]) == (held, "refused")
        assert {lease.state for lease in await at.house.leases()} == {LeaseState.ACTIVE}


async def test_a_held_role_is_given_to_nobody_and_renewed_for_who_has_it(tmp_path: Path) -> None:
    """403 with a sentence, not offered any more; the holder's own renewal is as before."""
    leaving: set[str] = set()
    async with front(tmp_path) as house, house.session(house.agent()) as session:
        object.__setattr__(house.house.world, "leaving", leaving)
        task = await opened(session)
        lease = (await obtained(session, task))["lease"]["id"]
        await call(session, "POST", f"/v1/leases/{lease}/ack", {})
        leaving.add(ROLE)
        status, said = await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE})
        assert (status, "taken out of the settings" in said["detail"]) == (403, True)
        assert (await call(session, "GET", "/v1/roles"))[1]["items"] == []
        assert (await call(session, "POST", f"/v1/leases/{lease}/renew", {}))[0] == 200
        (target,) = (await call(session, "GET", "/v1/targets"))[1]["items"]
        assert ROLE in target["trouble"]


async def test_other_policies_end_nothing(tmp_path: Path) -> None:
    """Everything is forbidden from now on: nothing new is given, what was given is renewed, and its task lives."""
    forbid = '@id("freeze") forbid (principal, action, resource);'
    async with front(tmp_path) as house, house.session(house.agent()) as session:
        task = await opened(session)
        lease = (await obtained(session, task))["lease"]["id"]
        await call(session, "POST", f"/v1/leases/{lease}/ack", {})
        house.gate.policies._current = parse({"freeze.cedar": forbid})
        assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 403
        for _ in range(20):
            await house.clock.advance(MINUTE)
            await house.tick()
        (kept,) = await house.house.leases()
        assert (kept.state, kept.until > house.clock.now()) == (LeaseState.ACTIVE, True)
        assert (await call(session, "GET", f"/v1/tasks/{task}"))[1]["state"] == "active"


async def test_a_grant_that_was_decided_before_is_made_nowhere(tmp_path: Path) -> None:
    """It waited for the target's claim while the target moved: made at the old place, it would be ended at the new."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        arrived, go = at.house.engine.hold("claim")
        asking = asyncio.gather(at.house.obtain(task, role=READ), return_exceptions=True)
        await arrived.wait()
        at.configured.slow = asyncio.Event()
        at.configured.opening.clear()
        at.write(READ, WRITE, place=Place(host="db-2"))
        moving = asyncio.gather(at.reloading.again())
        await at.configured.opening.wait()
        go.set()
        (refused,) = await asking
        assert isinstance(refused, Denied)
        at.configured.slow.set()
        assert [told.held for told in await moving] == [()]
        assert at.there() == {}
        assert (await at.house.obtain(task, role=READ)).lease.handle.name in at.there("db-2")


async def test_the_claim_of_the_place_before_is_none_of_the_new_one(tmp_path: Path) -> None:
    """An answer that comes after the target moved says nothing of where it is now."""
    async with here(tmp_path) as at:
        task = await at.house.open()
        arrived, go = at.house.engine.hold("claim")
        asking = asyncio.gather(at.house.obtain(task, role=READ), return_exceptions=True)
        await arrived.wait()
        at.write(READ, WRITE, place=Place(host="db-2"))
        await at.reloading.again()
        at.configured.servers["db-2"].target.claim = Claim(installation="another", incarnation="another")
        go.set()
        (refused,) = await asking
        assert isinstance(refused, Conflict)
        assert at.there("db-2") == {}


async def test_what_is_lent_through_a_target_holds_its_move(tmp_path: Path) -> None:
    """Given back at the new place, the account at the old one would keep the password that was lent."""
    async with shelf(tmp_path) as at, AsyncExitStack() as stack:
        world, lent = at.house.world, at.house.role
        configured = Pretended(Lent(clock=world.clock), stack)
        configured.engines, configured.targets, configured.roles = world.engines, world.targets, world.roles  # type: ignore[assignment]
        configured.servers |= {"db-1": at.accounts, "shelf": world.engines["shelf"]}  # type: ignore[dict-item]
        values = Configuration(engine=Place("shelf"), roles={lent.full_name: lent})
        settings = {"shelf": values, "orders-db": Configuration(engine=Place(), roles={})}
        reloading = Reloading(world, configured, lambda: settings)
        await reloading.again()
        task = await at.house.open()
        held = await at.house.held(task)
        settings["orders-db"] = Configuration(engine=Place("db-2"), roles={})
        (holding,) = (await reloading.again()).held
        assert (holding.target, holding.role, holding.leases) == ("orders-db", "shelf/legacy", 1)
        assert world.engines["orders-db"] is at.accounts
        assert at.log_in(held) is not None
        assert (await reloading.again("operator:ada")).ending == 1
        await at.house.reap()
        assert at.log_in(held) is None
        await reloading.tick()
        assert (reloading.held, world.engines["orders-db"]) == ((), configured.servers["db-2"])


@pytest.mark.parametrize("name", ["nodes", "replicas", "standbys", "revocations"])
def test_one_place_of_several_less_is_another_place(name: str) -> None:
    """What was made is still there, and would not be ended there any more; one more costs nobody anything."""
    two, one = SimpleNamespace(kind="any", **{name: ("a", "b")}), SimpleNamespace(kind="any", **{name: ("b",)})
    assert has_moved(two, one)
    assert not has_moved(one, two)


@pytest.mark.parametrize("name", ["host", "port", "issuer", "region", "account"])
def test_another_place_is_told_from_another_way_to_it(name: str) -> None:
    """Where a target is decides; how many connections go there, or with which password, does not."""
    before = SimpleNamespace(kind="any", password="a", connections=4, **{name: "one"})
    assert has_moved(before, SimpleNamespace(kind="any", password="a", connections=4, **{name: "two"}))
    assert not has_moved(before, SimpleNamespace(kind="any", password="b", connections=9, **{name: "one"}))
