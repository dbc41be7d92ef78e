"""While handshakes storm, tasks end at their pace: on the real `up`, whose parts share one loop (traps 26)."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path

from ca.runtime.clock import SystemClock
from journeys.leading import agent, told
from journeys.orders import Orders, gone, orders
from journeys.processes import PATIENCE, Running, python, started

ROLE = "orders-db/readonly"
AT_ONCE = 200
TURNS = 5
CLOCK = SystemClock()


async def endings(house: Orders, one: Running) -> float:
    """How long it takes from the word of an end until nothing is left at the database: the median."""
    took = []
    for _ in range(TURNS):
        await told(one, "open", "task")
        await told(one, f"obtain {ROLE}", "username")
        begun = CLOCK.boot()
        await told(one, "end", "state")
        await gone(house.room)
        took.append(CLOCK.boot() - begun)
    return statistics.median(took)


async def test_endings_keep_their_pace(tmp_path: Path) -> None:
    """Two hundred strangers who shake hands without a pause; the ratio is bounded, whatever the machine."""
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        await endings(house, one)
        calm = await endings(house, one)
        host, _, port = house.up.address.removeprefix("https://").rpartition(":")
        async with started(*python("storm.py"), host, port, str(AT_ONCE), folder=tmp_path, name="storm") as storm:
            await storm.line("{")
            stormy = await endings(house, one)
            await storm.say("enough")
            many = json.loads(await storm.line("{"))["storm"]
        assert many > AT_ONCE
        assert stormy < 12 * calm
