"""What is over is forgotten after its time, what is still needed never; a cut chain verifies from its checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.chain import Head
from broker.audit.verify import verify
from broker.loops.retention import Forgetting
from broker.model.receipt import ReceiptKind
from broker.model.retention import LEAST, Retention
from broker.settings import RetentionSettings
from broker.store import checkpoints, outbox, receipts
from broker.store.outbox import Message
from ca.errors import Problem
from ca.runtime.database import Transaction
from ca.runtime.settings import loads
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

DAY = 86_400.0
KEEP = Retention(events=timedelta(days=1), tasks=timedelta(days=10), receipts=timedelta(days=30))


async def over(house: House, parent: Any = None) -> Any:
    """A task that was given a secret, ended, and has nothing left."""
    task = await house.open(parent)
    await house.held(task, key="once")
    await house.end(task)
    await house.reap()
    return task


async def counted(house: House) -> Mapping[str, int]:
    """How many rows there are."""

    async def unit(tx: Transaction) -> Mapping[str, int]:
        found = {}
        for table in ("tasks", "leases", "requests", "events", "receipts"):
            row = await tx.fetchrow(f"SELECT COUNT(*) AS n FROM {table}")
            found[table] = 0 if row is None else row["n"]
        return found

    return await house.world.database.read(unit)


async def verified(house: House) -> Mapping[str, Head]:
    """Every chain, from its checkpoint to its end."""
    cuts = await house.world.database.read(checkpoints.all_of)
    ends = {}
    for writer in await house.world.database.read(receipts.writers):
        entries = await house.world.database.read(lambda tx, writer=writer: receipts.chain(tx, writer, limit=10_000))  # type: ignore[misc]
        end = verify(entries, start=cuts.get(writer))
        assert end is not None
        ends[writer] = end
    return ends


async def test_each_kind_goes_after_its_own_time(tmp_path: Path) -> None:
    """Events first, then the tree with its leases and requests, then receipts, of which the last stays."""
    async with living(tmp_path) as house:
        told: dict[str, int] = {}
        loop = Forgetting(house.world, KEEP, lambda what, many: told.update({what: told.get(what, 0) + many}))
        await over(house)
        before = await counted(house)
        assert (before["tasks"], before["leases"], before["requests"]) == (1, 1, 1)
        await house.clock.advance(DAY * 0.9)
        await loop.tick(house.clock.now())
        assert await counted(house) == before
        await house.clock.advance(DAY * 0.2)
        await loop.tick(house.clock.now())
        assert await counted(house) == {**before, "events": 0}
        await house.clock.advance(DAY * 10)
        await loop.tick(house.clock.now())
        assert await counted(house) == {**before, "events": 0, "tasks": 0, "leases": 0, "requests": 0}
        await house.clock.advance(DAY * 30)
        await loop.tick(house.clock.now())
        assert (await counted(house))["receipts"] == 2  # the last that was there, and the word of the cut
        gone = {"events": before["events"], "tasks": 1, "leases": 1, "requests": 1}
        assert told == {**gone, "receipts": before["receipts"] - 1}


async def test_a_cut_chain_verifies_from_its_checkpoint(tmp_path: Path) -> None:
    """Again and again, also across a restart; the receipt of a cut names what the checkpoint holds."""
    async with living(tmp_path) as house:
        loop = Forgetting(house.world, KEEP, batch=3)
        for _ in range(4):
            await over(house)
            await house.clock.advance(DAY * 20)
            await loop.tick(house.clock.now())
            await verified(house)
        cuts = await house.world.database.read(checkpoints.all_of)
        (cut,) = cuts.values()
        bodies = [one.receipt.body for one in await house.receipts() if one.receipt.kind is ReceiptKind.AUDIT_CUT]
        assert {"number": cut.number, "hash": cut.hash}.items() <= bodies[-1].items()
        ends = await verified(house)
        clock = house.clock
    async with living(tmp_path, clock=clock) as house:
        await over(house)
        later = await verified(house)
        assert later.items() >= ends.items()
        await clock.advance(DAY * 100)
        await Forgetting(house.world, KEEP).tick(clock.now())
        assert set(await verified(house)) == set(later)


async def test_what_is_still_needed_stays(tmp_path: Path) -> None:
    """A tree with a task of which something is left, and every receipt younger than the oldest such task."""
    async with living(tmp_path) as house:
        loop = Forgetting(house.world, KEEP)
        old = await over(house)
        top = await house.open(deadline=house.clock.now() + timedelta(days=900))
        await over(house, top)
        stuck = await house.open(top)
        await house.held(stuck)
        await house.end(stuck)
        house.engine.fail("end_access", times=10_000)
        await house.reap()
        recorded = len(await house.receipts())
        first = next(one.number for one in await house.receipts() if one.receipt.task not in {None, old.id})
        for _ in range(3):
            await house.clock.advance(DAY * 100)
            await loop.tick(house.clock.now())
        left = await counted(house)
        assert (left["tasks"], left["leases"], left["requests"]) == (3, 2, 2)
        assert min(one.number for one in await house.receipts()) <= first
        assert left["receipts"] >= recorded - first


async def test_what_another_party_must_still_be_told_keeps_its_task(tmp_path: Path) -> None:
    """Until it has answered."""
    async with living(tmp_path) as house:
        loop = Forgetting(house.world, KEEP)
        owed = Message(id="attestor:t:ended", party="attestor", kind="task.ended", body={})
        await house.world.database.write(lambda tx: outbox.add(tx, owed, house.clock.now()))
        await over(house)
        await house.clock.advance(DAY * 50)
        await loop.tick(house.clock.now())
        assert (await counted(house))["tasks"] == 1
        await house.world.database.write(lambda tx: outbox.done(tx, owed))
        await loop.tick(house.clock.now())
        assert (await counted(house))["tasks"] == 0


async def test_much_goes_in_small_pieces(tmp_path: Path) -> None:
    """A batch of three: each transaction is small, and one tick still finishes."""
    async with living(tmp_path) as house:
        loop = Forgetting(house.world, KEEP, batch=3)
        task = await house.open()
        for number in range(10):
            await house.held(task, key=str(number))
        await house.end(task)
        await house.reap()
        await house.clock.advance(DAY * 50)
        await loop.tick(house.clock.now())
        left = await counted(house)
        assert (left["tasks"], left["leases"], left["requests"], left["events"]) == (0, 0, 0, 0)
        assert loop.forgotten["leases"] == loop.forgotten["requests"] == 10
        await verified(house)


async def test_two_brokers_forget_at_once(tmp_path: Path) -> None:
    """Nothing is cut twice, no chain breaks, and nobody fails."""
    async with living(tmp_path) as house:
        for _ in range(5):
            await over(house)
        await house.clock.advance(DAY * 50)
        now = house.clock.now()
        loops = [Forgetting(house.world, KEEP, batch=2) for _ in range(3)]
        await asyncio.gather(*(loop.tick(now) for loop in loops))
        for loop in loops:
            await loop.tick(now)
        left = await counted(house)
        assert (left["tasks"], left["leases"], left["events"]) == (0, 0, 0)
        await verified(house)
        cuts = [one.receipt.body["number"] for one in await house.receipts() if "number" in one.receipt.body]
        assert cuts == sorted(set(cuts))


@pytest.mark.parametrize("said", ["events: 59m", "tasks: 6d", "receipts: 29d", "leases: 1d", "events: never"])
def test_no_operator_goes_below_what_is_needed(said: str) -> None:
    """A point that was away for an hour goes on; a restart knows which processes ended."""
    with pytest.raises(Problem):
        loads(said, "retention", RetentionSettings)
    assert loads("{}", "retention", RetentionSettings).to_retention() == Retention()
    assert all(getattr(Retention(), name) >= getattr(LEAST, name) for name in ("events", "tasks", "receipts"))
