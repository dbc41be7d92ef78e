"""Another secret in the place of one that nears its last moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.client.secret import HeldSecret
from broker.client.task import task
from broker.errors import NotPossible
from broker.wire.tasks import EndTask
from fakes.doors import Doors, doors
from fakes.world import role

ROLE = "orders-db/readonly"


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Doors]:
    """A broker whose secrets last three seconds."""
    short = role(engine="postgres", ttl=timedelta(seconds=2), longest=timedelta(seconds=3))
    async with doors(tmp_path, the_role=short) as found:
        yield found


async def test_a_secret_is_replaced_in_place_before_it_runs_out(hasty: Doors) -> None:
    """Whoever waits goes on, the callback hears it, and a callback that fails harms nobody; again and again."""
    heard: list[int] = []

    def hear(secret: HeldSecret) -> None:
        heard.append(secret.generation)
        raise ValueError("the caller's own")

    async with hasty.as_agent() as broker, asyncio.timeout(60), task(purpose="x", roles=[ROLE], broker=broker) as work:
        secret = await work.secret(ROLE, on_change=hear)
        first, last, user = secret.lease, secret.last, secret.fields["username"]
        assert await secret.changed() == 1
        assert secret.last > last
        assert (secret.lease != first, secret.fields["username"] != user) == (True, True)
        assert list(work.held) == [secret.lease]
        assert await secret.changed(1) == 2
        assert heard == [1, 2]
        assert secret.over is None
        await work.end(wait=True)
    assert secret.over == "the task ended"


async def test_who_does_not_want_it_sees_the_secret_end(hasty: Doors) -> None:
    """`refresh=False`: the secret runs out and says so."""
    async with hasty.as_agent() as broker, asyncio.timeout(60), task(purpose="x", roles=[ROLE], broker=broker) as work:
        secret = await work.secret(ROLE, refresh=False)
        assert await secret.until_over() == "ran-out"
        assert await secret.changed() == 0
        with pytest.raises(NotPossible):
            await work.refresh(secret)


async def test_what_ends_with_its_task_is_not_asked_for_again(hasty: Doors) -> None:
    """The next one would last no longer: it is replaced once at most."""
    changes: list[HeldSecret] = []
    two = timedelta(seconds=2)
    async with (
        hasty.as_agent() as broker,
        asyncio.timeout(60),
        task(purpose="x", roles=[ROLE], lasts=two, broker=broker) as work,
    ):
        secret = await work.secret(ROLE, on_change=changes.append)
        assert work.told.deadline is not None
        assert secret.last <= work.told.deadline
        assert "ran" in await secret.until_over()
    assert len(changes) <= 1


async def test_a_secret_an_operator_took_back_is_not_asked_for_again(hasty: Doors) -> None:
    """It is over, by the operator's word."""
    async with (
        asyncio.timeout(60),
        hasty.as_agent() as broker,
        hasty.as_operator() as operator,
        task(purpose="x", roles=[ROLE], broker=broker) as work,
    ):
        secret = await work.secret(ROLE)
        await operator.revoke(secret.lease)
        assert await secret.until_over() == "operator"
        assert work.held == {}
        report = await work.end(EndTask(words="seen"), wait=True)
        assert (report.end_words, len(report.leases)) == ("seen", 1)
