"""A task's own identity over a real `up`, seen by the SPIFFE client of PyPI in the process that opened the task."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from broker.model.ids import TaskId
from ca.runtime.clock import SystemClock
from journeys.processes import PATIENCE, Running, python, started
from journeys.up import TRUST_DOMAIN, up

CLOCK = SystemClock()


async def until(one: Running, count: int) -> list[list[str]]:
    """The first context with so many identities."""
    while True:
        said: dict[str, Any] = json.loads(await one.line("{"))
        if len(found := said.get("svids", [])) == count:
            return list(found)


async def test_it_comes_on_the_stream_and_is_gone_with_the_task() -> None:
    """Behind the default identity; after the end it is gone from the stream, and verified gone in the report."""
    async with asyncio.timeout(PATIENCE), up() as running:
        environment = {"SPIFFE_ENDPOINT_SOCKET": running.workload_api, "SOJOURN_BROKER": running.address}
        script = python("named.py")
        async with started(*script, folder=running.places.state.parent, name="named", environment=environment) as one:
            first = await until(one, 1)
            both = await until(one, 2)
            assert both[0] == first[0]
            above, _, task = both[1][0].rpartition("/")
            assert above == f"spiffe://{TRUST_DOMAIN}/task"
            await one.say("end")
            last = await until(one, 1)
            assert last == first
            async with running.operator() as operator:
                while not (report := await operator.report(TaskId(task))).final:
                    await CLOCK.sleep(0.05)
            assert [(line.role, line.fate) for line in report.leases] == [("svid/task", "gone")]
