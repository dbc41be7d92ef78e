"""What two operators give up: batch by batch, in their names, and never called verified."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotPossible, OutcomeUnknown
from broker.lifecycle import withdraw
from broker.lifecycle.disown import give_up, propose
from broker.model.caller import ALL_VERBS, Operator
from broker.model.event import EventKind
from broker.model.lease import CloseReason, LeaseState
from broker.model.receipt import ReceiptKind
from broker.store import disownings, operators
from ca.errors import Denied, NotFound
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

DB = "target:orders-db"


async def written(house: House, kind: ReceiptKind) -> list[tuple[str, str | None, dict[str, object]]]:
    """What was written of a kind: by whom, of which lease, and what."""
    entries = [entry.receipt for entry in await house.receipts()]
    return [(one.actor, one.lease, dict(one.body)) for one in entries if one.kind is kind]


async def test_what_was_proposed_stands_for_an_hour_and_is_nobody_else_s_to_replace(tmp_path: Path) -> None:
    """The first name stays until the hour is over; the same operator may say it again."""
    async with living(tmp_path) as house:
        first = await propose(house.world, DB, "ada", house.clock.now())
        assert (first.what, first.by, first.at) == (DB, "ada", house.clock.now())
        assert await propose(house.world, DB, "bob", house.clock.now()) == first
        await house.clock.advance(60)
        second = await propose(house.world, DB, "ada", house.clock.now())
        assert second.at == house.clock.now()
        assert await written(house, ReceiptKind.DISOWN_PROPOSED) == [("operator:ada", None, {"what": DB})] * 2
        await house.clock.advance(3600)
        with pytest.raises(NotFound):
            await give_up(house.world, DB, "bob", house.clock.now())
        assert (await propose(house.world, DB, "bob", house.clock.now())).by == "bob"


@pytest.mark.parametrize("many", [0, 1, 100, 101])
async def test_all_of_a_target_is_given_up_in_batches(tmp_path: Path, many: int) -> None:
    """Each lease by the second operator's word, and one receipt of both names at the end; then the word is used up."""
    async with living(tmp_path) as house:
        task = await house.open()
        for _ in range(many):
            await house.obtain(task)
        await propose(house.world, DB, "ada", house.clock.now())
        with pytest.raises(Denied):
            await give_up(house.world, DB, "ada", house.clock.now())
        assert await give_up(house.world, DB, "bob", house.clock.now()) == many
        leases = await house.leases()
        assert {(one.state, one.close_reason) for one in leases} <= {(LeaseState.DISOWNED, CloseReason.OPERATOR)}
        assert {one.access_ended_at for one in leases} <= {None}
        body = {"what": DB, "proposed_by": "ada", "verified": False, "unreadable": 0}
        assert await written(house, ReceiptKind.DISOWNED) == [("operator:bob", None, body)]
        closed = await written(house, ReceiptKind.LEASE_CLOSED)
        assert (len(closed), {actor for actor, *_ in closed}) == (many, {"operator:bob"} if many else set())
        assert await house.world.database.read(lambda tx: disownings.find(tx, DB)) is None
        with pytest.raises(NotFound):
            await give_up(house.world, DB, "bob", house.clock.now())


async def test_one_whose_end_is_under_way_is_given_up_with_its_own_reason(tmp_path: Path) -> None:
    """It says who gave it up and that nobody looked, and keeps why it was to end."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, house.clock.now())
        what = f"lease:{handed.lease.id}"
        await propose(house.world, what, "ada", house.clock.now())
        await house.clock.advance(3)
        assert await give_up(house.world, what, "bob", house.clock.now()) == 1
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.close_reason, lease.closed_at) == (
            LeaseState.DISOWNED,
            CloseReason.ASKED,
            house.clock.now(),
        )
        assert lease.trouble == "given up by ada and bob: its end is not verified"
        ((actor, of, body),) = await written(house, ReceiptKind.DISOWNED)
        assert (actor, of, body["what"]) == ("operator:bob", handed.lease.id, what)
        last = (await house.events())[-1]
        assert (last.kind, last.body["state"], last.body["reason"]) == (EventKind.LEASE_CLOSED, "disowned", "asked")
        assert house.engine.target.principals  # nobody looked


async def test_one_that_is_in_use_at_a_lost_target_is_ended_first(tmp_path: Path) -> None:
    """The record has both steps, and when its access should have been gone."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        now = house.clock.now()
        await propose(house.world, DB, "ada", now)
        await give_up(house.world, DB, "bob", now + timedelta(seconds=1))
        lease = await house.lease(handed.lease.id)
        assert (lease.revoking_at, lease.end_due_at) == (now + timedelta(seconds=1),) * 2
        steps = [one.receipt for one in await house.receipts()][-3:]
        assert [(one.kind, one.actor) for one in steps] == [
            (ReceiptKind.LEASE_REVOKING, "operator:bob"),
            (ReceiptKind.LEASE_CLOSED, "operator:bob"),
            (ReceiptKind.DISOWNED, "operator:bob"),
        ]


@pytest.mark.parametrize("many", [1, 101])
async def test_what_can_t_be_read_is_given_up_and_counted_with_the_rest(tmp_path: Path, many: int) -> None:
    """Though it takes several batches: the receipt says of how many nothing was known; their tasks are told over."""
    async with living(tmp_path) as house:
        task, other = await house.open(), await house.open()
        bad = (await house.obtain(other)).lease.id
        for _ in range(many):
            await house.obtain(task)
        await house.end(other)
        now = house.clock.now()
        await house.world.database.write(lambda tx: tx.execute("UPDATE leases SET set_aside = 1 WHERE id = $1", bad))
        await propose(house.world, DB, "ada", now)
        assert await give_up(house.world, DB, "bob", now) == many
        ((_, _, body),) = await written(house, ReceiptKind.DISOWNED)
        assert body["unreadable"] == 1
        closed = [event.task for event in await house.events() if event.kind is EventKind.TASK_CLOSED]
        assert closed == [other.id]


@pytest.mark.parametrize("later", [False, True])
async def test_nobody_is_added_to_confirm(tmp_path: Path, *, later: bool) -> None:
    """Who became an operator after it was proposed is no second one; who was one before is."""
    async with living(tmp_path) as house:
        handed = await house.held(await house.open())
        await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, house.clock.now())
        await propose(house.world, DB, "ada", house.clock.now())
        added = house.clock.now() + timedelta(seconds=1 if later else -1)
        eve = Operator(name="eve", verbs=ALL_VERBS)
        await house.world.database.write(lambda tx: operators.add(tx, eve, b"a certificate", "ada", added))
        if later:
            with pytest.raises(Denied):
                await give_up(house.world, DB, "eve", house.clock.now())
            assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKING
        else:
            assert await give_up(house.world, DB, "eve", house.clock.now()) == 1


async def test_what_is_in_use_is_not_given_up_alone(tmp_path: Path) -> None:
    """Only one whose end can't be verified; one that is over is over."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        what = f"lease:{handed.lease.id}"
        await propose(house.world, what, "ada", house.clock.now())
        with pytest.raises(NotPossible):
            await give_up(house.world, what, "bob", house.clock.now())
        await house.end(task)
        await house.reap()
        with pytest.raises(NotPossible):
            await give_up(house.world, what, "bob", house.clock.now())
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED
        house.engine.fail("create", error=OutcomeUnknown("no answer"))
        with pytest.raises(OutcomeUnknown):
            await house.obtain(await house.open())
        doubted = next(one for one in await house.leases() if one.state is LeaseState.IN_DOUBT)
        await propose(house.world, f"lease:{doubted.id}", "ada", house.clock.now())
        assert await give_up(house.world, f"lease:{doubted.id}", "bob", house.clock.now()) == 1
        assert (await house.lease(doubted.id)).close_reason is CloseReason.OPERATOR
