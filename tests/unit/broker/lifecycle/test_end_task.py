"""One transaction ends a task, whatever hangs on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.errors import NotYet
from broker.lifecycle import end_task
from broker.loops.outbox import OutboxLoop
from broker.model.event import EventKind
from broker.model.ids import InstanceId, new_task
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.task import EndReason, TaskEvent, TaskState
from broker.store import outbox
from broker.store.outbox import Message
from ca.errors import NotFound, Unavailable
from fakes.filling import Filling, only_endings
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import living

pytestmark = pytest.mark.usefixtures("on_every_store")


async def test_state_receipt_event_and_outbox_are_one(tmp_path: Path) -> None:
    """What is told and owed is written with the end, once, for each task of the tree."""
    async with living(tmp_path, parties=("attestor",)) as house:
        root = await house.open()
        await house.open(root)
        ended = await house.end(root, EndReason.OPERATOR, words="enough", actor="operator:eve")
        assert [(task.state, task.version) for task in ended] == [(TaskState.CANCELLED, 2)] * 2
        receipts = [entry.receipt for entry in await house.receipts()]
        assert [(r.kind, r.actor) for r in receipts] == [(ReceiptKind.TASK_ENDED, "operator:eve")] * 2
        assert [event.kind for event in await house.events()] == [EventKind.TASK_ENDED] * 2
        told: list[str] = []

        async def tell(message: Message) -> None:
            told.append(message.body["task"])

        loop = OutboxLoop(house.world, {"attestor": tell})
        assert (await loop.tick(house.clock.now()), await loop.tick(house.clock.now())) == (2, 0)
        assert set(told) == {task.id for task in ended}


async def test_what_is_owed_is_owed_until_it_was_taken_in(tmp_path: Path) -> None:
    """A party that does not answer is told again, at growing intervals."""
    async with living(tmp_path, parties=("attestor",)) as house:
        await house.end(await house.open())
        answers = [Unavailable("not now"), Unavailable("not now"), None]

        async def tell(_: Message) -> None:
            answer = answers.pop(0)
            if answer is not None:
                raise answer

        loop = OutboxLoop(house.world, {"attestor": tell})
        taken = []
        for _ in range(4):
            taken.append(await loop.tick(house.clock.now()))
            await house.clock.advance(1)
        assert (taken, answers) == ([0, 0, 1, 0], [])


async def test_an_end_is_final(tmp_path: Path) -> None:
    """The first reason stands; nothing is written twice."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.end(task, EndReason.SAID_SO, event=TaskEvent.FAIL, words="it broke")
        assert not await house.end(task, EndReason.OPERATOR)
        ended = await house.task(task.id)
        assert (ended.state, ended.end_reason, ended.end_words) == (TaskState.FAILED, EndReason.SAID_SO, "it broke")
        assert len(await house.events()) == 1


async def test_no_lease_row_is_touched_by_an_end(tmp_path: Path) -> None:
    """Ten thousand leases end with one row."""
    async with living(tmp_path) as house:
        task = await house.open()
        before = [await house.held(task) for _ in range(5)]
        await house.end(task)
        assert [(await house.lease(one.lease.id)).version for one in before] == [
            one.lease.version + 1 for one in before
        ]  # the acknowledgement's, and no other


async def test_what_is_not_there_can_not_end(tmp_path: Path) -> None:
    """An unknown task is not found."""
    async with living(tmp_path) as house:
        task = await house.open()
        with pytest.raises(NotFound):
            await house.end(replace(task, id=new_task(task.opened_at)))


async def test_several_ends_are_one_and_what_was_meant_is_written_first(tmp_path: Path) -> None:
    """Each with its own reason; one that was never there ends none of them; nothing to end is nothing."""
    async with living(tmp_path) as house:
        now = house.clock.now()
        first, second = await house.open(), await house.open()
        meant = Receipt(kind=ReceiptKind.KILLED, at=now, actor="operator:ada", body={})
        ghost = end_task.because(house.world, new_task(now), EndReason.DEADLINE, now)
        both = [
            end_task.because(house.world, first.id, EndReason.DEADLINE, now),
            end_task.because(house.world, second.id, EndReason.SILENT, now),
        ]
        with pytest.raises(NotFound):
            await end_task.end_all(house.world, [*both, ghost], also=meant)
        assert all([(await house.task(task.id)).is_live for task in (first, second)])
        assert await end_task.end_all(house.world, [], also=meant) == ()
        assert await house.receipts() == []
        ended = await end_task.end_all(house.world, both, also=meant)
        assert [(one.id, one.end_reason) for one in ended] == [
            (first.id, EndReason.DEADLINE),
            (second.id, EndReason.SILENT),
        ]
        said = [entry.receipt for entry in await house.receipts()]
        assert [one.kind for one in said] == [ReceiptKind.KILLED, ReceiptKind.TASK_ENDED, ReceiptKind.TASK_ENDED]
        assert {one.actor for one in said[1:]} == {f"broker:{house.world.broker}"}
        assert [one.body["with"] for one in said[1:]] == [first.id, second.id]
        assert await end_task.end_all(house.world, both, also=meant) == ()
        assert len(await house.receipts()) == 3


async def test_what_another_party_is_told_of_an_end(tmp_path: Path) -> None:
    """Each party of each task: which one, whose process, at which version; once however often it is said."""
    async with living(tmp_path, parties=("attestor", "proxy")) as house:
        task = await house.open(instance=InstanceId("0" * 32))
        await house.end(task)
        await house.end(task)
        body = {"task": task.id, "instance": task.instance, "version": 2}
        for party in ("attestor", "proxy"):
            owed = await house.world.database.read(lambda tx, to=party: outbox.due(tx, to, house.clock.now(), 10))  # type: ignore[misc]
            said = [(one.id, one.party, one.kind, dict(one.body)) for one in owed]
            assert said == [(f"{party}:{task.id}:ended", party, "task.ended", body)]


async def test_an_end_wakes_whoever_waits_for_one(tmp_path: Path) -> None:
    """The streams, the reaper and the outbox look at once, not at their next turn."""
    async with living(tmp_path) as house:
        task = await house.open()
        wakes = (house.world.feed, house.world.reaper, house.world.outbox)
        await house.end(task)
        async with asyncio.timeout(60):
            for wake in wakes:
                await wake.wait()


async def test_an_end_that_can_t_be_written_fences_the_whole_tree_and_nothing_beside_it(tmp_path: Path) -> None:
    """Each task below with the reason of the one above; one that could not be cut keeps no other from it."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        top = await house.open()
        middle, beside = await house.open(top), await house.open(top)
        bottom = await house.open(middle)
        held = {task.id: await house.held(task) for task in (top, middle, bottom, beside)}
        over = await house.open(middle)
        await house.end(over)
        store.full, store.reserve = True, False
        house.engine.fail("end_access", error=NotYet("still there"))
        now = house.clock.now()
        ended = await house.end(middle, EndReason.OPERATOR, words="enough", actor="operator:ada")
        assert [(one.id, one.state, one.version, one.ended_at) for one in ended] == [
            (middle.id, TaskState.CANCELLED, 2, now),
            (bottom.id, TaskState.CANCELLED, 2, now),
        ]
        fenced = {middle.id, bottom.id}
        assert fenced <= set(house.world.unrecorded) <= {*fenced, over.id}
        assert {said.actor for said in house.world.unrecorded.values()} == {"operator:ada"}
        opens = {name for name, one in held.items() if await house.engine.target.login(one.issued) is not None}
        assert opens in ({top.id, beside.id, middle.id}, {top.id, beside.id, bottom.id})  # one was not gone yet
        with pytest.raises(NotFound):
            await house.end(replace(top, id=new_task(now)))
        store.full = False
        await house.clock.advance(1)
        await house.reap()
        assert not house.world.unrecorded
        written = [await house.task(name) for name in (middle.id, bottom.id)]
        assert [one.end_reason for one in written] == [EndReason.OPERATOR, EndReason.PARENT_ENDED]
        assert {await house.engine.target.login(held[name].issued) for name in fenced} == {None}


async def test_an_end_is_written_from_the_reserve(tmp_path: Path) -> None:
    """A full disk takes it: nothing is left to be written later."""
    async with living(tmp_path, wrap=Filling) as house:
        task = await house.open()
        only_endings(house)
        await house.end(task)
        assert (not house.world.unrecorded, (await house.task(task.id)).is_live) == (True, False)
