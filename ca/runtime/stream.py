"""Server-sent events: one writer per reader, and no reader holds up anybody.

    async def events(call: Call) -> web.StreamResponse:
        async with event_stream(call) as stream:
            while True:
                for event in await feed.after(stream.cursor):
                    await stream.send(str(event.epoch), event.kind, event.body)
                await stream.beat(str(feed.epoch))
        return stream.response

The caller beats each second. Before each write the reader's identity is asked again (traps 35). What a reader has not
taken yet is bounded: past the bound its connection is cut, and it comes back with the id of the last event it got
(`Last-Event-ID`), so it loses nothing. The block
ends quietly when the reader has left or the process stops.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from ca.errors import Exhausted, Problem, Unavailable
from ca.runtime import log
from ca.runtime.problem import document
from ca.runtime.web import SERVICE, STARTED, Call

BOUND = 256 * 1024
"""Bytes a reader may be behind."""

_NEVER_PAUSE = 2**30
_BREAK = re.compile(r"[\r\n\0]")
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
    """One reader. Whatever Problem leaves the block is told to the reader and the log and goes no further."""

    def __init__(self, call: Call, *, bound: int = BOUND) -> None:
        self._call = call
        self._bound = bound
        self._service = call.request.app[SERVICE]
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self.cursor = call.request.headers.get("Last-Event-ID")

    async def __aenter__(self) -> Self:
        request = self._call.request
        await self.response.prepare(request)
        request[STARTED] = self.response
        if request.transport is not None:
            # Writing must never wait for a reader; how far behind one is, is looked at before each write.
            request.transport.set_write_buffer_limits(high=_NEVER_PAUSE)
        self._gauge(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._gauge(-1)
        if isinstance(error, ReaderLeft):
            _log.debug("a reader left", cursor=self.cursor)
        elif isinstance(error, SlowReader):
            _log.warning("a slow reader was cut", error=error)
            self._cut()
        elif isinstance(error, Problem):
            _log.info("a stream ended", error=error, cursor=self.cursor)
            await self._farewell(error)
        else:
            return False
        return True

    async def send(self, id: str | None, event: str, data: Mapping[str, Any] | str) -> None:  # noqa: A002
        """Tell one event; `id` becomes the reader's cursor."""
        await self._write(encoded(id, event, data if isinstance(data, str) else json.dumps(data)))
        if id is not None:
            self.cursor = id

    async def send_encoded(self, id: str | None, content: bytes) -> None:  # noqa: A002
        """Tell what was put into its words for many readers (`encoded`)."""
        await self._write(content)
        if id is not None:
            self.cursor = id

    async def beat(self, data: str = "") -> None:
        """Say that nothing happened; `data` is the newest cursor there is."""
        await self._write(encoded(None, "beat", data))

    async def _write(self, content: bytes) -> None:
        if self._service.stopping.is_set():
            raise GoingAway("this process stops")
        await self._call.recheck()
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            raise ReaderLeft("the reader has left")
        behind = transport.get_write_buffer_size()
        if behind > self._bound:
            raise SlowReader(f"the reader is {behind} bytes behind", cursor=self.cursor)
        try:
            await self.response.write(content)
        except ConnectionError as error:
            raise ReaderLeft("the reader has left") from error

    async def _farewell(self, problem: Problem) -> None:
        """Tell why it ends, as far as the reader still listens."""
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            return
        told = json.dumps(document(problem, self._call.id))
        with suppress(ConnectionError):  # it may leave at any moment
            await self.response.write(encoded(None, "end", told))
            await self.response.write_eof()

    def _cut(self) -> None:
        """Drop the connection and what is still queued for it."""
        if self._call.request.transport is not None:
            self._call.request.transport.abort()
        if self._service.metrics is not None:
            self._service.metrics.count("sojourn_event_streams_dropped_total")

    def _gauge(self, change: int) -> None:
        if self._service.metrics is not None:
            self._service.metrics.add("sojourn_event_streams", change)


def event_stream(call: Call, *, bound: int = BOUND) -> EventStream:
    """A stream of events to whoever made `call`; an async context manager."""
    return EventStream(call, bound=bound)


def encoded(id: str | None, event: str, data: str) -> bytes:  # noqa: A002
    """One event on the wire.

    Raises:
        RuntimeError: `id` or `event` holds a line break: it would begin a field of its own.
    """
    if _BREAK.search(f"{id or ''}{event}"):
        raise RuntimeError("the id and name of an event must be one line")
    lines = [f"id: {id}"] if id is not None else []
    lines.append(f"event: {event}")
    text = data.replace("\r\n", "\n").replace("\r", "\n")
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()
