"""One transaction ends a task, whatever hangs on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from broker.loops.outbox import OutboxLoop
from broker.model.event import EventKind
from broker.model.ids import new_task
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason, TaskEvent, TaskState
from broker.store.outbox import Message
from ca.errors import NotFound, Unavailable
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
