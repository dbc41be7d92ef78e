"""The facade for programs without an event loop: the same task, held by a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.beside import beside
from broker.client.blocking import TaskEnded, Work, task
from broker.client.secret import HeldSecret
from broker.errors import NotPossible, Refused
from broker.model.report import Fate
from broker.model.task import TaskState
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask
from ca.errors import Malformed
from fakes.doors import PASSWORD
from fakes.place import Place, place

ROLE = "orders-db/readonly"


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A broker that this process finds by its environment."""
    async with place(tmp_path) as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


async def only_report(house: Place) -> ReportTold:
    """Of the one task there was."""
    async with house.doors.as_operator() as operator:
        (found,) = (await operator.tasks()).items
        return await operator.report(found.id)


def work_with(body: Callable[[Work], object], roles: Sequence[str] = (ROLE,)) -> None:
    """Do `body` in a task."""
    with task(purpose="to see", roles=roles) as work:
        body(work)


async def test_work_that_ends_well_leaves_nothing(house: Place) -> None:
    """The secret is of the same type, works inside, and is over outside; so is the task."""
    held: list[HeldSecret] = []

    def body(work: Work) -> None:
        held.append(work.secret(ROLE))
        assert held[0]["password"].reveal() == PASSWORD
        assert work.held == {held[0].lease: held[0]}
        assert work.report().leases[0].acknowledged_at is not None
        assert work.told.id == work.id

    await asyncio.to_thread(work_with, body)
    assert held[0].over == "the task ended"
    assert (await only_report(house)).state is TaskState.DONE


async def test_the_closing_report_is_read_where_the_task_is_ended(house: Place) -> None:
    """Once everything is verified to be gone; the block's end adds nothing, and nothing more is given."""

    def body(work: Work) -> None:
        work.secret(ROLE)
        report = work.end(EndTask(words="seen"), wait=True)
        assert [line.fate for line in report.leases] == [Fate.GONE]
        assert report.end_words == "seen"

    await asyncio.to_thread(work_with, body)
    assert (await only_report(house)).end_words == "seen"


async def test_an_error_fails_the_task_and_leaves_as_itself(house: Place) -> None:
    """Its text stays here."""

    def body(work: Work) -> None:
        raise ValueError("tulip")

    with pytest.raises(ValueError, match="tulip"):
        await asyncio.to_thread(work_with, body)
    report = await only_report(house)
    assert (report.state, report.end_words) == (TaskState.FAILED, "left by ValueError")


async def test_a_refusal_comes_out_where_it_was_asked(house: Place) -> None:
    """And what can't be meant is told before a task is there."""

    def body(work: Work) -> None:
        with pytest.raises(Malformed, match="orders-db/owner"):
            work.secret("orders-db/owner")
        with pytest.raises(Malformed):
            work.secret(ROLE, confidence=-1)

    await asyncio.to_thread(work_with, body)
    with pytest.raises(Refused):
        await asyncio.to_thread(work_with, lambda work: work.secret(ROLE), roles=["other/*"])
    with pytest.raises(Malformed, match="`purpose`"):
        await asyncio.to_thread(lambda: task(purpose="").__enter__())


async def test_many_threads_share_it(house: Place) -> None:
    """Each gets a secret of its own."""

    def body(work: Work) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: work.secret(ROLE), range(8)))
        assert len({secret.lease for secret in found}) == 8
        assert len(work.held) == 8

    await asyncio.to_thread(work_with, body)


async def test_an_end_from_outside_is_heard_at_once_and_raised_at_the_next_use(house: Place) -> None:
    """By a callback, by every method, by those that wait, and by leaving."""
    opened: list[Work] = []
    ready, heard = threading.Event(), threading.Event()

    def work_until_heard() -> None:
        with task(purpose="to see", roles=[ROLE], on_end=lambda _: heard.set()) as work:
            secret = work.secret(ROLE)
            opened.append(work)
            ready.set()
            with suppress(TaskEnded):  # one or the other is noticed first
                assert work.until_over(secret) == "the task ended"
            assert heard.wait(60)
            assert secret.over == "the task ended"
            with pytest.raises(TaskEnded, match=r"operator\): seen enough"):
                work.secret(ROLE)

    async def killed() -> None:
        async with beside(asyncio.to_thread(work_until_heard)), house.doors.as_operator() as operator:
            await asyncio.to_thread(ready.wait, 60)
            await operator.end(opened[0].id, EndTask(words="seen enough"))
            await asyncio.Event().wait()

    with pytest.raises(TaskEnded, match="seen enough"):
        await killed()
    assert isinstance(opened[0].ended, TaskEnded)


async def test_where_a_loop_runs_it_says_what_to_use_instead(house: Place) -> None:
    """It would make that loop stand still; nothing was opened."""
    with pytest.raises(NotPossible, match=r"broker\.client\.task"), task(purpose="to see"):
        pass
    async with house.doors.as_operator() as operator:
        assert (await operator.tasks()).items == []


async def test_after_the_block_nothing_more_is_given(house: Place) -> None:
    """The sentence says so."""
    left: list[Work] = []
    await asyncio.to_thread(work_with, left.append)
    with pytest.raises(NotPossible, match="was left"):
        await asyncio.to_thread(lambda: left[0].secret(ROLE))


async def test_another_secret_takes_its_place_when_the_target_refuses_it(house: Place) -> None:
    """In the same object, with another lease; the old one is given back."""

    def body(work: Work) -> None:
        secret = work.secret(ROLE, ttl=timedelta(minutes=5))
        before, user = secret.lease, secret.fields["username"]
        work.refresh(secret)
        assert work.changed(secret, seen=0) == 1
        assert (secret.lease != before, secret.fields["username"] != user) == (True, True)
        report = work.end(wait=True)
        assert {line.lease: line.fate for line in report.leases} == {before: Fate.GONE, secret.lease: Fate.GONE}

    await asyncio.to_thread(work_with, body)
