"""Server-sent events: one writer per reader, and no reader holds up anybody.

    async def events(call: Call) -> web.StreamResponse:
        async with event_stream(call) as stream:
            while True:
                for event in await feed.after(cursor, or_by=...):
                    await stream.send(str(event.epoch), event.kind, event.body)
                await stream.beat(str(epoch))

The caller beats each second. Before each write the reader's identity is asked again (traps 35). What a reader has not
taken yet is bounded: past the bound its connection is cut, and it comes back with the id of the last event it got
(`Last-Event-ID`), so it loses nothing. `event_stream` ends quietly when the reader has left or the process stops.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from ca.errors import Exhausted, Problem, Unavailable
from ca.runtime import log
from ca.runtime.problem import document
from ca.runtime.web import SERVICE, STARTED, Call

BOUND = 256 * 1024
"""Bytes a reader may be behind."""

_NEVER_PAUSE = 2**30
_log = log.get(__name__)


class SlowReader(Exhausted):
    """The reader is further behind than it may be; it comes back with its cursor."""

    code = "slow-reader"


class GoingAway(Unavailable):
    """This process stops: ask again, here or elsewhere."""

    code = "going-away"


class ReaderLeft(Unavailable):
    """Nobody reads any more."""

    code = "reader-left"


class EventStream:
    """One reader; made by `event_stream`. Its methods raise what ends the stream."""

    def __init__(self, call: Call, response: web.StreamResponse, bound: int) -> None:
        self._call = call
        self._response = response
        self._bound = bound
        self._stopping = call.request.app[SERVICE].stopping
        self.cursor = call.request.headers.get("Last-Event-ID")

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns at the end."""
        return self._response

    async def send(self, id: str | None, event: str, data: Mapping[str, Any] | str) -> None:  # noqa: A002
        """Tell one event; `id` becomes the reader's cursor."""
        await self._write(encoded(id, event, data if isinstance(data, str) else json.dumps(data)))
        if id is not None:
            self.cursor = id

    async def beat(self, data: str = "") -> None:
        """Say that nothing happened; `data` is the newest cursor there is."""
        await self._write(encoded(None, "beat", data))

    async def farewell(self, problem: Problem) -> None:
        """Tell why the stream ends, as far as the reader still listens."""
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            return
        told = json.dumps(document(problem, self._call.id))
        await self._response.write(encoded(None, "end", told))
        await self._response.write_eof()

    def cut(self) -> None:
        """Drop the connection and what is still queued for it."""
        if self._call.request.transport is not None:
            self._call.request.transport.abort()

    async def _write(self, content: bytes) -> None:
        if self._stopping.is_set():
            raise GoingAway("this process stops")
        await self._call.recheck()
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            raise ReaderLeft("the reader has left")
        behind = transport.get_write_buffer_size()
        if behind > self._bound:
            raise SlowReader(f"the reader is {behind} bytes behind", cursor=self.cursor)
        try:
            await self._response.write(content)
        except ConnectionError as error:
            raise ReaderLeft("the reader has left") from error


@asynccontextmanager
async def event_stream(call: Call, *, bound: int = BOUND) -> AsyncIterator[EventStream]:
    """Begin a stream of events; whatever Problem ends it is told to the reader and to the log, not raised.

    The handler returns `stream.response` afterwards.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(call.request)
    call.request[STARTED] = response
    if call.request.transport is not None:
        # Writing must never wait for a reader; how far behind one is, is looked at before each write.
        call.request.transport.set_write_buffer_limits(high=_NEVER_PAUSE)
    stream, metrics = EventStream(call, response, bound), call.request.app[SERVICE].metrics
    if metrics is not None:
        metrics.add("sojourn_event_streams", 1)
    try:
        yield stream
    except ReaderLeft:
        _log.debug("a reader left", cursor=stream.cursor)
    except SlowReader as problem:
        _log.warning("a slow reader was cut", error=problem)
        if metrics is not None:
            metrics.count("sojourn_event_streams_dropped_total")
        stream.cut()
    except Problem as problem:
        _log.info("a stream ended", error=problem, cursor=stream.cursor)
        await stream.farewell(problem)
    finally:
        if metrics is not None:
            metrics.add("sojourn_event_streams", -1)


def encoded(id: str | None, event: str, data: str) -> bytes:  # noqa: A002
    """One event on the wire.

    Raises:
        RuntimeError: `id` or `event` holds a line break: it would begin a field of its own.
    """
    for field in (id or "", event):
        if any(letter in field for letter in "\r\n\0"):
            raise RuntimeError("the id and name of an event must be one line")
    lines = [f"id: {id}"] if id is not None else []
    lines.append(f"event: {event}")
    text = data.replace("\r\n", "\n").replace("\r", "\n")
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()
