"""A task around a piece of work, against a broker's own doors."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.client.broker import Broker
from broker.client.living import LiveTask
from broker.client.secret import HeldSecret
from broker.client.task import TaskEnded, task
from broker.errors import Refused
from broker.model.report import Fate
from broker.model.task import TaskState
from broker.wire.tasks import EndTask
from ca.errors import Malformed
from fakes.doors import PASSWORD, Doors, doors

ROLE = "orders-db/readonly"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Doors]:
    """A broker."""
    async with doors(tmp_path) as found:
        yield found


@pytest.fixture
async def agent(house: Doors) -> AsyncIterator[Broker]:
    """A process that may open tasks."""
    async with house.as_agent() as broker:
        yield broker


async def test_work_that_ends_well_leaves_nothing(house: Doors, agent: Broker) -> None:
    """The secret works inside; afterwards the task is done and everything is gone."""
    async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
        secret = await work.secret(ROLE)
        assert secret["password"].reveal() == PASSWORD
        assert secret.fields["host"] == "db.example.org"
        assert (await work.report()).leases[0].acknowledged_at is not None
    report = await work.until_gone()
    assert report.state is TaskState.DONE
    assert [line.fate for line in report.leases] == [Fate.GONE]
    assert secret.over == "the task ended"
    assert house.engine_target.principals == {}


async def test_an_error_fails_the_task_and_its_text_stays_here(house: Doors, agent: Broker) -> None:
    """The report names the kind of error; what it says may be a secret."""
    with pytest.raises(ValueError, match="tulip"):
        async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
            raise ValueError("tulip")
    report = await work.report()
    assert report.state is TaskState.FAILED
    assert report.end_words == "left by ValueError"


async def test_work_that_is_cancelled_ends_its_task_as_cancelled(house: Doors, agent: Broker) -> None:
    """By a timeout, a task group or Ctrl-C: all are a CancelledError in here. Its secrets go as well."""
    opened: list[LiveTask] = []

    async def hang() -> None:
        async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
            await work.secret(ROLE)
            opened.append(work)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await hang()
    report = await opened[0].until_gone()
    assert (report.state, report.end_words) == (TaskState.CANCELLED, "the work in it was cancelled")
    assert house.engine_target.principals == {}


async def test_a_kill_cancels_the_work(house: Doors, agent: Broker) -> None:
    """The body is cancelled, the error says by whom and why, and the secret knows that it is dead."""
    held: list[HeldSecret] = []

    async def killed() -> None:
        async with house.as_operator() as operator, task(purpose="to see", roles=[ROLE], broker=agent) as work:
            held.append(await work.secret(ROLE))
            await operator.end(work.id, EndTask(words="seen enough"))
            await for_ever()

    with pytest.raises(TaskEnded, match=r"operator\): seen enough"):
        await killed()
    assert held[0].over == "the task ended"


async def test_a_revoked_secret_says_so_and_the_work_goes_on(house: Doors, agent: Broker) -> None:
    """Only that secret is over."""
    async with house.as_operator() as operator, task(purpose="to see", roles=[ROLE], broker=agent) as work:
        first, second = await work.secret(ROLE), await work.secret(ROLE)
        await operator.revoke(first.lease)
        assert await first.until_over() == "operator"
        assert list(work.held) == [second.lease]


async def test_a_renewal_moves_the_end(house: Doors, agent: Broker) -> None:
    """What the broker renews by itself is seen here."""
    async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
        secret = await work.secret(ROLE)
        before = secret.until
        secret.renewed(before - timedelta(seconds=5))
        assert secret.until == before
        told = await agent.renew(secret.lease)
        await _until(lambda: secret.until == told.until)
        assert secret.until > before


async def test_a_target_that_was_down_for_a_moment_is_asked_again(house: Doors, agent: Broker) -> None:
    """One failed try is not the agent's business."""
    house.house.engine.fail("create")
    async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
        assert (await work.secret(ROLE)).role == ROLE


async def test_what_is_outside_the_scope_is_refused_and_the_task_fails(house: Doors, agent: Broker) -> None:
    """The refusal comes out of the block as itself."""
    with pytest.raises(Refused):
        async with task(purpose="to see", roles=["other/*"], broker=agent) as work:
            await work.secret(ROLE)
    assert (await work.report()).state is TaskState.FAILED


async def test_a_part_of_a_task_ends_with_it(house: Doors, agent: Broker) -> None:
    """A task below another is ended by the end of that one."""

    async def outlived() -> None:
        async with (
            task(purpose="whole", roles=[ROLE], broker=agent) as whole,
            task(purpose="part", roles=[ROLE], parent=whole.id, broker=agent),
        ):
            await whole.end(EndTask())
            await for_ever()

    with pytest.raises(TaskEnded, match="parent-ended"):
        await outlived()


async def test_what_can_not_be_meant_is_said_before_anything_is_sent(house: Doors, agent: Broker) -> None:
    """An empty purpose is no purpose."""
    with pytest.raises(Malformed, match="`purpose`"):
        async with task(purpose="", broker=agent):
            pass


async def test_a_secret_hides_itself(house: Doors, agent: Broker) -> None:
    """Printed, pickled or asked for a name it has not, it shows nothing."""
    async with task(purpose="to see", roles=[ROLE], broker=agent) as work:
        secret = await work.secret(ROLE)
        assert PASSWORD not in f"{secret!r} {secret} {secret.secrets!r} {work.held!r}"
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        with pytest.raises(Malformed, match="`password`"):
            secret["passwort"]
        assert secret.value("port").reveal() == "5432"
        assert secret.revealed()["password"] == PASSWORD
        with pytest.raises(Malformed) as caught:
            secret.value("nothing")
        assert PASSWORD not in str(caught.value)


async def for_ever() -> None:
    """Wait until somebody ends the wait."""
    async with asyncio.timeout(60):
        await asyncio.Event().wait()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.to_thread(lambda: None)
