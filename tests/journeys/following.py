"""Waiting for what a broker tells: by its stream of events, never by asking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from broker.client.broker import Broker
from broker.client.stream import Snapshot
from broker.model.event import EventKind
from broker.model.ids import TaskId
from broker.wire.events import EventLine
from journeys.processes import PATIENCE

_NO_CURSOR = "none.0"
"""A cursor of no store: the stream begins with a snapshot, so nothing falls between a look and the stream."""


async def until_ended(operator: Broker, task: str) -> None:
    """Return once the task has ended."""
    await _until(
        operator,
        lambda snapshot: TaskId(task) not in snapshot.tasks,
        lambda event: event.task == task and event.kind is EventKind.TASK_ENDED,
    )


async def _until(operator: Broker, over: Callable[[Snapshot], bool], seen: Callable[[EventLine], bool]) -> None:
    async with asyncio.timeout(PATIENCE), aclosing(operator.events(cursor=_NO_CURSOR)) as events:
        async for told in events:
            if over(told) if isinstance(told, Snapshot) else seen(told):
                return
