"""An operator's kill as the lifecycle does it: batches without a gap, one word of what was meant, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.lifecycle import kill as killing
from broker.lifecycle.end_task import because
from broker.lifecycle.kill import kill
from broker.model.kill import Kill, Reach
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason, TaskState
from ca.spiffe.id import SpiffeId
from fakes.filling import Filling
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import AGENT, House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

ALL = Kill(reach=Reach.AGENT, name=str(AGENT))
ADA = "operator:ada"
OTHER = SpiffeId.parse("spiffe://example.org/other")


async def meant(house: House) -> list[tuple[str, dict[str, object]]]:
    """Who killed what, as it is written."""
    entries = [entry.receipt for entry in await house.receipts()]
    return [(one.actor, dict(one.body)) for one in entries if one.kind is ReceiptKind.KILLED]


async def test_it_is_written_once_with_the_first_that_ends(tmp_path: Path) -> None:
    """What was named, by whom and with which words; then each task by the operator's word."""
    async with living(tmp_path) as house:
        top = await house.open()
        below = await house.open(top)
        now = house.clock.now()
        what = Kill(reach=Reach.TASK, name=top.id)
        killed = await kill(house.world, what, words="enough", actor=ADA, now=now)
        assert (set(killed.ended), killed.left) == ({top.id, below.id}, 0)
        assert await meant(house) == [(ADA, {"reach": "task", "name": top.id, "words": "enough"})]
        ended = await house.task(top.id)
        assert (ended.state, ended.end_reason, ended.end_words) == (TaskState.CANCELLED, EndReason.OPERATOR, "enough")
        assert ended.ended_at == now
        ends = [one.receipt for one in await house.receipts() if one.receipt.kind is ReceiptKind.TASK_ENDED]
        assert [(one.actor, one.at) for one in ends] == [(ADA, now)] * 2
        again = await kill(house.world, what, words=None, actor=ADA, now=now)
        assert (tuple(again.ended), again.left) == ((), 0)
        assert len(await meant(house)) == 1


@pytest.mark.parametrize("most", [None, 1, 101])
async def test_batches_reach_everything_and_no_more_than_was_asked(tmp_path: Path, most: int | None) -> None:
    """As many as were said, the oldest first; the rest is counted and lives."""
    async with living(tmp_path) as house:
        tasks = [(await house.open()).id for _ in range(killing.BATCH + 30)]
        killed = await kill(house.world, ALL, words=None, actor=ADA, now=house.clock.now(), most=most)
        gone = len(tasks) if most is None else most
        assert (len(killed.ended), killed.left) == (gone, len(tasks) - gone)
        assert set(killed.ended) == set(sorted(tasks)[:gone])
        assert len(await meant(house)) == 1
        assert [(await house.task(one)).is_live for one in sorted(tasks)[gone - 1 : gone + 1]] in (
            [False],
            [False, True],
        )


async def test_what_a_full_store_can_not_take_is_killed_all_the_same(tmp_path: Path) -> None:
    """Access ends outside, none of them counts as left, and the record follows in the operator's name."""
    async with living(tmp_path, wrap=Filling) as house:
        first, second = await house.open(), await house.open()
        handed = [await house.held(task) for task in (first, second)]
        store = house.world.database.inner  # type: ignore[attr-defined]
        store.full, store.reserve = True, False
        killed = await kill(house.world, ALL, words="enough", actor=ADA, now=house.clock.now())
        assert (set(killed.ended), killed.left) == ({first.id, second.id}, 0)
        for one in handed:
            assert await house.engine.target.login(one.issued) is None
        assert {said.actor for said in house.world.unrecorded.values()} == {ADA}
        store.full = False
        await house.reap()
        ended = [await house.task(task.id) for task in (first, second)]
        assert {(one.end_reason, one.end_words) for one in ended} == {(EndReason.OPERATOR, "enough")}


async def test_what_is_left_is_not_made_less_by_what_others_ended(tmp_path: Path) -> None:
    """Ends that wait for room in the store, of tasks it did not name: whoever asks for the rest must hear of it."""
    async with living(tmp_path) as house:
        tasks = sorted([(await house.open()).id for _ in range(3)])
        for other in [await house.open(owner=OTHER) for _ in range(3)]:
            house.world.unrecorded[other.id] = because(house.world, other.id, EndReason.DEADLINE, house.clock.now())
        killed = await kill(house.world, ALL, words=None, actor=ADA, now=house.clock.now(), most=1)
        assert (list(killed.ended), killed.left) == (tasks[:1], 2)
