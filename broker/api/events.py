"""/v1/events: what happened, as server-sent events in one dense order; /v1/epochs: what a point has applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints

from broker.api.door import asked, door, gate
from broker.events.feed import Feed, Resync
from broker.model.event import Epoch, Event
from broker.model.ids import parse_task
from broker.service import audit
from broker.wire.events import Confirm, Confirmed, EventLine
from ca.errors import Problem
from ca.runtime.stream import EventStream, event_stream
from ca.runtime.web import Call, Route

BEAT = 1.0
"""Seconds between beats of a stream on which nothing happens; a point without one for its bound denies (traps 7)."""

_AHEAD = 64


class EventQuery(BaseModel):
    """The tree of one task; left out: everything, for operators."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    task: Annotated[str, StringConstraints(max_length=40)] | None = None


async def events(call: Call) -> web.StreamResponse:
    """Follow events after `Last-Event-ID`, or from now on. A cursor that can't be gone on from gets `resync`."""
    query: EventQuery = call.parameters
    header = call.request.headers.get("Last-Event-ID")
    cursor = Epoch.parse(header) if header else None
    task = parse_task(query.task) if query.task is not None else None
    root = await audit.root_of(gate(call), asked(call), task)
    feed = door(call).feed
    async with event_stream(call) as out:
        await out.beat(str(feed.epoch))
        await _follow(out, feed, feed.stream(cursor, root))
    return out.response


async def _follow(out: EventStream, feed: Feed, lines: AsyncIterator[Event | Resync]) -> None:
    """Tell each line, and beat while there is none; returns by raising what ends the stream."""
    ready: asyncio.Queue[Event | Resync] = asyncio.Queue(_AHEAD)

    async def pump() -> None:
        async for line in lines:
            await ready.put(line)

    ended: Problem | None = None
    async with asyncio.TaskGroup() as group:
        pumping = group.create_task(pump())
        try:
            while True:
                await _tell(out, feed, ready)
        except Problem as problem:  # told to the reader by `event_stream`, which a group of errors would not reach
            ended = problem
        finally:
            pumping.cancel()
    if ended is not None:
        raise ended


async def _tell(out: EventStream, feed: Feed, ready: asyncio.Queue[Event | Resync]) -> None:
    try:
        async with asyncio.timeout(BEAT):
            line = await ready.get()
    except TimeoutError:
        await out.beat(str(feed.epoch))
        return
    if isinstance(line, Resync):
        await out.send(str(line.epoch), "resync", _snapshot(line))
        return
    told = EventLine.of(line)
    await out.send(told.epoch, str(told.kind), told.model_dump_json())


def _snapshot(line: Resync) -> dict[str, object]:
    return {
        "epoch": str(line.epoch),
        "tasks": [{"id": task, "version": version} for task, version in line.tasks],
        "leases": list(line.leases),
    }


async def confirm(call: Call) -> Confirmed:
    """An enforcement point's own claim that it applied everything up to an epoch."""
    ask: Confirm = call.body
    who = asked(call)
    point = await audit.confirm(gate(call), who, ask.epoch)
    newest = await audit.epoch(gate(call))
    return Confirmed(point=point, epoch=str(ask.epoch), newest=str(newest), at=who.now)


ROUTES = (
    Route("GET", "/v1/events", events, summary="Follow events", query=EventQuery, answer=EventLine, stream=True),
    Route("POST", "/v1/epochs", confirm, summary="Confirm an epoch", body=Confirm, answer=Confirmed),
)
