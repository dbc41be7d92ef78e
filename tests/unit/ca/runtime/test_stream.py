"""Server-sent events: in order, with a cursor, to whoever still may and still reads."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from ca.errors import Conflict
from ca.runtime.metrics import Metrics
from ca.runtime.stream import EventStream, encoded
from ca.runtime.web import Call, Route
from fakes.stores import Elsewhere
from fakes.web_service import WebService, served

BIG = "x" * 10_000


class Feed:
    """A handler that tells what the test puts into its queue."""

    def __init__(self, *, bound: int = 256 * 1024) -> None:
        self.queue: asyncio.Queue[tuple[str, str] | Exception | None] = asyncio.Queue()
        self.bound = bound
        self.streams: list[EventStream] = []
        self.ended = asyncio.Event()
        self.route = Route("GET", "/v1/events", self.tell, summary="Events", stream=True)

    async def tell(self, call: Call) -> web.StreamResponse:
        """Tell until something ends it."""
        try:
            async with EventStream(call, bound=self.bound) as stream:
                self.streams.append(stream)
                while True:
                    item = await self.queue.get()
                    if isinstance(item, Exception):
                        raise item
                    if item is None:
                        await stream.beat("inc.9")
                    else:
                        await stream.send(item[0], "told", item[1])
        finally:
            self.ended.set()
        return stream.response


async def parse(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    """The events as a client reads them."""
    found: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if not text:
            yield found
            found = {}
            continue
        name, _, value = text.partition(": ")
        found[name] = found[name] + "\n" + value if name in found else value


@pytest.fixture
def service() -> WebService:
    """Fresh for each test."""
    return WebService()


async def test_events_come_in_order_with_id_name_and_data(service: WebService) -> None:
    """And a beat has no id: it moves nobody's cursor."""
    feed = Feed()
    async with served(service, feed.route) as session, session.get("/v1/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        events = parse(answer)
        for item in (("inc.1", "one"), None, ("inc.2", "two\nlines")):
            feed.queue.put_nowait(item)
        assert await anext(events) == {"id": "inc.1", "event": "told", "data": "one"}
        assert await anext(events) == {"event": "beat", "data": "inc.9"}
        assert await anext(events) == {"id": "inc.2", "event": "told", "data": "two\nlines"}
        assert feed.streams[0].cursor == "inc.2"


async def test_a_reader_comes_back_with_its_cursor(service: WebService) -> None:
    """`Last-Event-ID` is where it goes on."""
    feed = Feed()
    async with (
        served(service, feed.route) as session,
        session.get("/v1/events", headers={"Last-Event-ID": "inc.41"}),
    ):
        assert feed.streams[0].cursor == "inc.41"


async def test_a_stream_ends_when_its_reader_may_not_read_any_more(service: WebService) -> None:
    """Looked at before each write (traps 35): the event after the end of the leaf is not told."""
    feed = Feed()
    async with served(service, feed.route) as session, session.get("/v1/events") as answer:
        events = parse(answer)
        feed.queue.put_nowait(("inc.1", "before"))
        assert (await anext(events))["data"] == "before"
        service.valid = False
        feed.queue.put_nowait(("inc.2", "after"))
        last = await anext(events)
        assert last["event"] == "end"
        assert json.loads(last["data"])["code"] == "unauthenticated"
        assert [event async for event in events] == []
    assert feed.streams[0].cursor == "inc.1"


async def test_whoever_may_not_read_gets_no_stream(service: WebService) -> None:
    """But a problem+json."""
    feed = Feed()
    service.valid = False
    async with served(service, feed.route) as session, session.get("/v1/events") as answer:
        assert answer.status == 401
        assert answer.content_type == "application/problem+json"


async def test_a_slow_reader_is_cut_and_others_are_not(service: WebService) -> None:
    """It is never waited for; what it has not taken is thrown away with its connection."""
    metrics, feed = Metrics(), Feed(bound=64 * 1024)
    async with served(service, feed.route, metrics=metrics) as session:
        assert session._base_url is not None
        loop = asyncio.get_running_loop()
        with socket.create_connection((session._base_url.host, session._base_url.port)) as slow:
            slow.setblocking(False)
            await loop.sock_sendall(slow, b"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-Test-Name: slow\r\n\r\n")
            sent = 0
            while not feed.ended.is_set():
                sent += 1
                feed.queue.put_nowait((f"inc.{sent}", BIG))
                await Elsewhere()
            assert metrics.value("sojourn_event_streams_dropped_total") == 1
            assert metrics.value("sojourn_event_streams") == 0
            cursor, got = feed.streams[0].cursor, b""
            while more := await loop.sock_recv(slow, 65_536):
                got += more
        assert cursor is not None
        assert f"id: {cursor}\n".encode() not in got
        assert not got.endswith(b"0\r\n\r\n")


async def test_a_reader_that_leaves_ends_its_stream(service: WebService) -> None:
    """At the next write."""
    feed = Feed()
    async with served(service, feed.route) as session:
        async with session.get("/v1/events") as answer:
            answer.close()
        while not feed.ended.is_set():
            feed.queue.put_nowait(None)
            await Elsewhere()


async def test_a_process_that_stops_tells_its_readers(service: WebService) -> None:
    """As the last event, and the response ends whole."""
    feed = Feed()
    async with served(service, feed.route) as session, session.get("/v1/events") as answer:
        events = parse(answer)
        feed.queue.put_nowait(None)
        assert (await anext(events))["event"] == "beat"
        feed.streams[0]._service.stopping.set()
        feed.queue.put_nowait(None)
        last = [event async for event in events]
    assert [event["event"] for event in last] == ["end"]
    assert json.loads(last[0]["data"])["code"] == "going-away"


async def test_leaving_the_listener_is_what_stops_it(service: WebService) -> None:
    """It is told before running requests are waited for, so a stream that beats ends at its next beat."""
    feed = Feed()
    async with served(service, feed.route) as session, session.get("/v1/events"):
        stream = feed.streams[0]
        assert not stream._service.stopping.is_set()
    assert stream._service.stopping.is_set()


async def test_a_failure_inside_a_stream_breaks_it_off(service: WebService) -> None:
    """A Problem is told; of anything else the reader sees a response that isn't whole."""
    for error, whole in ((Conflict("no"), True), (ValueError("hunter2"), False)):
        feed = Feed()
        async with served(service, feed.route) as session, session.get("/v1/events") as answer:
            feed.queue.put_nowait(error)
            if whole:
                assert [event["event"] async for event in parse(answer)] == ["end"]
            else:
                with pytest.raises(aiohttp.ClientPayloadError):
                    [event async for event in parse(answer)]


@pytest.mark.parametrize(("id_", "event"), [("a\nid: b", "e"), ("a", "e\rdata: x"), ("a\0", "e")])
def test_no_field_begins_inside_another(id_: str, event: str) -> None:
    """An id or name with a line break is our own mistake."""
    with pytest.raises(RuntimeError, match="one line"):
        encoded(id_, event, "data")


def test_data_can_not_forge_a_field() -> None:
    """Every line of it is data, whichever line break it has."""
    assert encoded(None, "e", "a\r\nid: 9\rb\n") == b"event: e\ndata: a\ndata: id: 9\ndata: b\ndata: \n\n"
