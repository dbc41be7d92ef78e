"""/v1/events: what happened, as server-sent events in one dense order; /v1/epochs: what a point has applied."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints

from broker.api.door import asked, door, gate
from broker.events.feed import Feed, Resync
from broker.model.event import Epoch, Event
from broker.model.ids import parse_task
from broker.service import audit
from broker.wire.events import Confirm, Confirmed, EventLine
from ca.runtime.stream import EventStream, event_stream
from ca.runtime.web import Call, Route

BEAT = 1.0
"""Seconds between beats of a stream on which nothing happens; a point without one for its bound denies (traps 7)."""


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
        reader = feed.reader(cursor, root)
        while True:
            await _tell(out, feed, await reader.next(_patience()))
    return out.response


def _patience() -> float:
    """A little less than the time between two beats, each time another: so that ten thousand beats fall apart."""
    return BEAT * (1 - secrets.randbelow(256) / 1024)


async def _tell(out: EventStream, feed: Feed, lines: Sequence[Event | Resync]) -> None:
    """Tell what came, or that nothing did."""
    if not lines:
        await out.send_encoded(None, feed.beat())
    for line in lines:
        if isinstance(line, Resync):
            await out.send(str(line.epoch), "resync", _snapshot(line))
        else:
            await out.send_encoded(str(line.epoch), feed.words(line))


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
