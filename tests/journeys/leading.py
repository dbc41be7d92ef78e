"""Agents in processes of their own beside an `up`, led step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from journeys.processes import Running, python, started
from journeys.up import RunningUp


def agent(up: RunningUp, name: str) -> AbstractAsyncContextManager[Running]:
    """`agent.py`, told where the Workload API and the broker are and nothing else."""
    environment = {"SPIFFE_ENDPOINT_SOCKET": up.workload_api, "SOJOURN_BROKER": up.address}
    return started(*python("agent.py"), folder=up.places.state.parent, name=name, environment=environment)


async def told(one: Running, word: str, answer: str) -> Mapping[str, Any]:
    """Lead an agent one step: the next line it says that has `answer` in it."""
    await one.say(word)
    found: Mapping[str, Any] = json.loads(await one.line(f'"{answer}":'))
    return found
