"""Three brokers over one PostgreSQL: any of them may die, or be frozen, at any moment, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from journeys.brokers import CLOCK, NAMES, ROLE, Brokers, brokers, told
from journeys.processes import PATIENCE, Running

ROUNDS = 6
EVERY = 5.0
"""Seconds between two kills."""


async def _listen(agent: Running, said: list[dict[str, Any]]) -> None:
    """Everything an agent prints, until it says that it is over."""
    while not (said and "over" in said[-1]):
        said.append(json.loads(await agent.line()))


async def _in_turn(found: Brokers, how: signal.Signals, rounds: int) -> None:
    """One each five seconds; it is back before the next one ends, so two are always up."""
    for number in range(rounds):
        begun, name = CLOCK.boot(), NAMES[number % len(NAMES)]
        assert await found.running[name].end(how) == (0 if how is signal.SIGTERM else -how)
        await found.start(name)
        await CLOCK.sleep(max(0.0, begun + EVERY - CLOCK.boot()))


async def _under_load(how: signal.Signals, rounds: int) -> None:
    async with brokers() as found:
        for name in NAMES:
            await found.start(name)
        said: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
        async with asyncio.TaskGroup() as group:
            agents = [
                await found.stack.enter_async_context(
                    found.agent("load.py", "2", ROLE, order=[*NAMES[place:], *NAMES[:place]])
                )
                for place in range(len(NAMES))
            ]
            for agent, lines in zip(agents, said.values(), strict=True):
                group.create_task(_listen(agent, lines))
            await _in_turn(found, how, rounds)
            for agent in agents:
                await agent.say("enough")
        assert [line for lines in said.values() for line in lines if "error" in line] == []
        assert all(sum("done" in line for line in lines) >= rounds for lines in said.values())
        await found.clean()


async def test_one_is_killed_every_five_seconds_and_no_agent_notices() -> None:
    """Under steady load; in the end what is outside is what is active, and nothing was told or closed twice."""
    await _under_load(signal.SIGKILL, ROUNDS)


async def test_each_is_stopped_and_started_in_turn_and_no_agent_notices() -> None:
    """As for a new version: who stops finishes what it has begun, and its agents go on at the next."""
    await _under_load(signal.SIGTERM, len(NAMES))


async def test_one_is_frozen_in_the_middle_of_a_create_and_thawed_when_its_work_was_taken_over() -> None:
    """The agent gets its secret from another; what the thawed one still tries is refused by the target's own clock."""
    async with brokers() as found:
        frozen = await found.start("one", {"SOJOURN_FAILPOINTS": "obtain.create.before=stop"})
        for name in NAMES[1:]:
            await found.start(name)
        async with found.agent("load.py", "1", ROLE) as agent:
            await told(agent, done=1)
            await agent.say("enough")
            await told(agent, over=1)
        await found.clean()
        before = len(found.under.log)
        frozen.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while "RAISE EXCEPTION 'too late'" not in found.under.log[before:]:  # the very create, sent now
                await CLOCK.sleep(0.1)
        async with found.agent("load.py", "1", ROLE) as agent:  # and it is one of three again
            await told(agent, done=1)
            await agent.say("enough")
            await told(agent, over=1)
        await found.clean()
