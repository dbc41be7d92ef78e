"""Every way a task ends, over a real `up` and a real PostgreSQL: why, what of it is left, and what the report says.

By word, deadline, silence, its parent's end, its process's end, and an operator's kill of one, a tree, everything of an
agent. What it was given is gone each time, and the report is final and says so in one sentence.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable

import pytest

from broker.model.report import Fate
from broker.model.task import EndReason
from broker.wire.reports import ReportTold
from ca.runtime.clock import SystemClock
from journeys.leading import agent, told
from journeys.orders import Orders, gone, orders
from journeys.processes import PATIENCE, Running

ROLE = "orders-db/readonly"
CLOCK = SystemClock()
End = Callable[[Orders, Running, str], Awaitable[None]]


async def by_word(_house: Orders, one: Running, _task: str) -> None:
    """The agent says it is done."""
    await told(one, "end", "state")


async def by_time(_house: Orders, _one: Running, _task: str) -> None:
    """Nobody does anything."""


async def by_process(_house: Orders, one: Running, _task: str) -> None:
    """Its process is killed."""
    await one.end(signal.SIGKILL)


def by_operator(*words: str) -> End:
    """An operator types it; `TASK` stands for the task."""

    async def end(house: Orders, _one: Running, task: str) -> None:
        typed = [task if word == "TASK" else word for word in words]
        finished = await house.up.sojourn("task", "kill", *typed, "--json")
        assert finished.code == 0, finished.err

    return end


WAYS: dict[EndReason, tuple[dict[str, str], End]] = {
    EndReason.SAID_SO: ({}, by_word),
    EndReason.DEADLINE: ({"lasts": "10s"}, by_time),
    EndReason.SILENT: ({"heartbeat": "3s"}, by_time),
    EndReason.PROCESS_ENDED: ({}, by_process),
    EndReason.OPERATOR: ({}, by_operator("TASK")),
}


async def closed(house: Orders, task: str) -> ReportTold:
    """The report once it is final."""
    async with house.up.operator() as operator:
        while not (report := await operator.report(task)).final:
            await CLOCK.sleep(0.02)
    return report


@pytest.mark.parametrize("reason", WAYS, ids=str)
async def test_a_task_ends_and_nothing_of_it_is_left(reason: EndReason) -> None:
    """With a child below it, which ends because its parent did; both were given a user, and both users are gone."""
    more, end = WAYS[reason]
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        top = (await told(one, f"open {json.dumps(more)}", "task"))["task"]
        await told(one, f"obtain {ROLE}", "username")
        if end is by_word:
            await end(house, one, top)
            report = await closed(house, top)
        else:
            child = (await told(one, f"open {json.dumps({'parent': top})}", "task"))["task"]
            await told(one, f"obtain {ROLE}", "username")
            assert len(await house.users()) == 2
            await end(house, one, top)
            report = await closed(house, top)
            below = await closed(house, child)
            ended_alone = reason is EndReason.PROCESS_ENDED  # both are bound to the process that is no more
            assert below.end_reason in {EndReason.PARENT_ENDED, *([reason] if ended_alone else [])}
        await gone(house.room)
    assert report.end_reason is reason
    assert {line.fate for line in report.leases if line.role == ROLE} == {Fate.GONE}
    others = {line.fate for line in report.leases if line.role != ROLE}
    assert others <= {Fate.GONE, Fate.NEVER_MADE}  # its identity: it may have ended before that was signed
    assert report.access_gone_after_ms is not None
    assert report.summary.startswith("access gone at +")


async def test_an_operator_kills_all_of_an_agent() -> None:
    """Two processes of one identity, three tasks: a dry run names them and ends none, then all are gone."""
    async with (
        asyncio.timeout(PATIENCE),
        orders() as house,
        agent(house.up, "one") as one,
        agent(house.up, "two") as two,
    ):
        tasks = [(await told(each, "open", "task"))["task"] for each in (one, one, two)]
        for each in (one, two):
            await told(each, f"obtain {ROLE}", "username")
        async with house.up.operator() as operator:
            owner = str((await operator.task(tasks[0])).owner)
        seen = json.loads((await house.up.sojourn("task", "kill", "--agent", owner, "--dry-run", "--json")).out)
        assert {one["id"] for one in seen["listed"]} == set(tasks)
        assert (seen["leases"], seen["identities"]) == ({"orders-db": 2}, 3)
        assert len(await house.users()) == 2
        await by_operator("--agent", owner, "--yes", "--wait")(house, one, "")
        await gone(house.room)
        for task in tasks:
            assert (await closed(house, task)).end_reason is EndReason.OPERATOR
