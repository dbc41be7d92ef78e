"""kill -9 of the node agent, and its restart: what lives goes on, what died meanwhile is found dead."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from journeys.following import until_ended
from journeys.processes import Running
from journeys.three import three


async def test_a_live_task_survives_and_a_dead_one_ends() -> None:
    """The live agent keeps its instance and its task; the other's task ends because its process did."""
    async with three() as (machine, node_agent), AsyncExitStack() as stack:
        live = await stack.enter_async_context(machine.agent("live"))
        dying = await stack.enter_async_context(machine.agent("dying"))
        before = await heard(live, "svid")
        kept = (await told(live, "open", "task"))["task"]
        lost = (await told(dying, "open", "task"))["task"]

        await node_agent.end(signal.SIGKILL)
        assert (await told(live, "state", "state"))["state"] == "active"
        await dying.end(signal.SIGKILL)
        operator = await stack.enter_async_context(machine.operator())
        assert (await operator.task(lost)).ended_at is None

        await stack.enter_async_context(machine.node_agent())
        again = await heard(live, "svid")
        assert again["instance"] == before["instance"]
        await until_ended(operator, lost)
        ended = await operator.task(lost)
        assert (ended.state, ended.end_reason) == ("failed", "process-ended")
        assert (await told(live, "state", "state"))["state"] == "active"
        assert [task.id for task in (await operator.tasks(live=True)).items] == [kept]
        assert (await told(live, "end", "state"))["state"] == "done"


async def told(agent: Running, word: str, answer: str) -> Mapping[str, Any]:
    """Lead an agent one step, and hear how it went."""
    await agent.say(word)
    return await heard(agent, answer)


async def heard(agent: Running, answer: str) -> Mapping[str, Any]:
    """The next line that has `answer` in it."""
    found: Mapping[str, Any] = json.loads(await agent.line(f'"{answer}":'))
    return found
