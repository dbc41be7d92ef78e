"""A receipt by its holder: once, by the task itself, while it lives; what is over is never brought back by it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Fenced, NotPossible
from broker.lifecycle import end_task, withdraw
from broker.lifecycle.acknowledge import acknowledge
from broker.model.lease import CloseReason
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason
from ca.errors import NotFound
from fakes.world import AGENT, living

ME = str(AGENT)


async def test_it_is_noted_once_and_changes_what_is_due(tmp_path: Path) -> None:
    """From then on silence ends nothing: the next thing that is due is the renewal, at half of the window."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.obtain(task)
        assert (await house.lease(handed.lease.id)).due_at == handed.lease.ack_by
        await house.clock.advance(5)
        said = house.clock.now()
        noted = await acknowledge(house.world, task.id, handed.lease.id, ME, said)
        assert (noted.acknowledged_at, noted.due_at) == (said, handed.lease.until - timedelta(minutes=1))
        await house.clock.advance(5)
        again = await acknowledge(house.world, task.id, handed.lease.id, ME, house.clock.now())
        assert again == noted == await house.lease(handed.lease.id)
        kinds = [entry.receipt.kind for entry in await house.receipts()]
        assert kinds.count(ReceiptKind.LEASE_ACKNOWLEDGED) == 1


async def test_another_task_s_lease_is_no_lease_of_this_one(tmp_path: Path) -> None:
    """Not even of the task above it."""
    async with living(tmp_path) as house:
        top = await house.open()
        below = await house.open(top)
        handed = await house.obtain(below)
        for task in (top, await house.open()):
            with pytest.raises(NotFound):
                await acknowledge(house.world, task.id, handed.lease.id, ME, house.clock.now())
        assert (await house.lease(handed.lease.id)).acknowledged_at is None


@pytest.mark.parametrize("how", ["ended", "above", "unwritten", "late"])
async def test_a_task_that_ended_acknowledges_nothing(tmp_path: Path, how: str) -> None:
    """Its own end, the end above it, one the full store could not take, and a deadline nobody has written yet."""
    async with living(tmp_path) as house:
        top = await house.open()
        task = await house.open(top, deadline=house.clock.now() + timedelta(seconds=10))
        handed = await house.obtain(task)
        if how == "unwritten":
            now = house.clock.now()
            house.world.unrecorded[top.id] = end_task.because(house.world, top.id, EndReason.SAID_SO, now)
        elif how == "late":
            await house.clock.advance(10)
        else:
            await house.end(task if how == "ended" else top)
        with pytest.raises(Fenced):
            await acknowledge(house.world, task.id, handed.lease.id, ME, house.clock.now())
        assert (await house.lease(handed.lease.id)).acknowledged_at is None


async def test_one_that_is_being_ended_stays_so(tmp_path: Path) -> None:
    """Who is late by a moment hears it."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.obtain(task)
        ending = await withdraw.begin(house.world, handed.lease.id, CloseReason.ASKED, house.clock.now())
        with pytest.raises(NotPossible):
            await acknowledge(house.world, task.id, handed.lease.id, ME, house.clock.now())
        assert await house.lease(handed.lease.id) == ending
