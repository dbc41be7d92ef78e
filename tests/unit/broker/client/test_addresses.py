"""Several brokers over one store: any of them is asked, and what may be done twice is asked of the next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from attestor.client.errors import Unreachable
from broker.client.addresses import Addresses
from broker.client.broker import Broker
from broker.client.ending import patiently
from broker.client.transport import Transport
from broker.errors import TargetDown, UnderWay
from broker.wire.proof import HEADER, new_key
from broker.wire.tasks import EndTask, OpenTask, TaskOpened, TaskTold
from ca.errors import Problem, Unavailable
from ca.runtime.clock import SystemClock
from ca.runtime.stream import encoded
from ca.runtime.web import Call, Route, application, listen
from fakes.clock import ManualClock
from fakes.nouns import task

CLOCK = SystemClock()
TASK = task()
TOLD = TaskTold.of(TASK)


@dataclass
class Other:
    """A broker that answers, or does what it is told instead."""

    asked: list[str] = field(default_factory=list)
    proofs: list[str | None] = field(default_factory=list)
    instead: Callable[[Call], Awaitable[None]] | None = None
    url: str = ""

    async def told(self, call: Call) -> TaskTold:
        self.asked.append(call.request.method)
        self.proofs.append(call.request.headers.get(HEADER))
        if self.instead is not None:
            await self.instead(call)
        return TOLD

    async def opened(self, call: Call) -> TaskOpened:
        return TaskOpened(task=await self.told(call), decision="d" * 26, policies=[], reason="so")


@asynccontextmanager
async def brokers(count: int = 2) -> AsyncIterator[tuple[Broker, list[Other]]]:
    """A client of so many."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            one = Other()
            routes = (
                Route("GET", f"/v1/tasks/{TASK.id}", one.told, summary="s", answer=TaskTold),
                Route("POST", f"/v1/tasks/{TASK.id}/end", one.told, summary="s", body=EndTask, answer=TaskTold),
                Route("POST", "/v1/tasks", one.opened, summary="s", body=OpenTask, answer=TaskOpened),
            )
            bound = await stack.enter_async_context(listen(application(routes), host="127.0.0.1", port=0, drain=0.1))
            one.url = f"http://127.0.0.1:{bound[1]}"
            found.append(one)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield client(session, *(one.url for one in found)), found


def client(session: aiohttp.ClientSession, *urls: str) -> Broker:
    """As `Broker.connect` makes it, without TLS."""
    addresses = Addresses(urls)
    return Broker(Transport(session=session, where=str(addresses), hint="wait", addresses=addresses, clock=CLOCK))


async def gone(call: Call) -> None:
    """Killed in the middle: nobody can tell what was done."""
    assert call.request.transport is not None
    call.request.transport.abort()


def refuses(problem: Problem) -> Callable[[Call], Awaitable[None]]:
    """It answers, and can't do anything."""

    async def refuse(_: Call) -> None:
        raise problem

    return refuse


def nobody() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_who_answered_last_comes_first() -> None:
    """And who is given up comes last, once however often it is said."""
    addresses = Addresses(("a", "b", "c"))
    assert list(addresses.in_turn()) == ["a", "b", "c"]
    addresses.give_up("a")
    addresses.give_up("a")
    assert list(addresses.in_turn()) == ["b", "c", "a"]


async def test_one_that_is_not_there_costs_nothing() -> None:
    """Nothing was sent, so whatever it was is asked of the next, and the next is asked first from then on."""
    async with brokers(1) as (_, (there,)), aiohttp.ClientSession() as session:
        broker = client(session, nobody(), there.url)
        await broker.open_task(OpenTask(purpose="p"))
        await broker.task(TASK.id)
        assert there.asked == ["POST", "GET"]


@pytest.mark.parametrize("trouble", [gone, refuses(Unavailable("this broker is stopping"))])
async def test_what_may_be_done_twice_is_asked_of_the_next(trouble: Callable[[Call], Awaitable[None]]) -> None:
    """Reading, ending, and what carries a key; whoever follows asks the one that works."""
    async with brokers() as (broker, (first, second)):
        first.instead = trouble
        await broker.task(TASK.id)
        await broker.end(TASK.id, EndTask())
        await broker.open_task(OpenTask(purpose="p"), key="k")
        assert (len(first.asked) > 0, second.asked) == (True, ["GET", "POST", "POST"])


@pytest.mark.parametrize("trouble", [gone, refuses(Unavailable("this broker is stopping"))])
async def test_what_may_not_is_told(trouble: Callable[[Call], Awaitable[None]]) -> None:
    """It may have been done; the next request goes elsewhere."""
    async with brokers() as (broker, (first, second)):
        first.instead = trouble
        with pytest.raises(Unavailable):
            await broker.open_task(OpenTask(purpose="p"))
        assert second.asked == []
        await broker.open_task(OpenTask(purpose="p"))
        assert second.asked == ["POST"]


@pytest.mark.parametrize("problem", [TargetDown("the target is away"), UnderWay("at this moment")])
async def test_what_no_other_broker_can_help_with_is_told_at_once(problem: Problem) -> None:
    """They all have the same targets, and the same store."""
    async with brokers() as (broker, (first, second)):
        first.instead = refuses(problem)
        with pytest.raises(type(problem)):
            await broker.end(TASK.id, EndTask())
        assert second.asked == []


async def test_when_nobody_answers_the_last_trouble_is_told() -> None:
    """Each was asked once."""
    async with aiohttp.ClientSession() as session:
        first, second = nobody(), nobody()
        with pytest.raises(Unreachable, match=second):
            await client(session, first, second).task(TASK.id)


async def test_each_attempt_is_proven_anew() -> None:
    """A proof is good once, and the first may have taken it."""
    async with brokers() as (broker, (first, second)):
        first.instead = gone
        await broker.proven_by(new_key()).task(TASK.id)
        assert first.proofs[0] != second.proofs[0]
        assert second.proofs[0] is not None


async def test_a_stream_goes_on_at_the_next() -> None:
    """From its cursor; what broke is given up."""
    seen: list[str | None] = []

    async def events(call: Call) -> aiohttp.web.StreamResponse:
        seen.append(call.request.headers.get("Last-Event-ID"))
        response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(call.request)
        line = f'{{"epoch": "a.{len(seen)}", "kind": "task.changed", "at": "2026-11-23T12:00:00Z", "body": {{}}, '
        line += f'"task": "{TASK.id}", "root": "{TASK.id}"}}'
        await response.write(encoded(f"a.{len(seen)}", "task.changed", line))
        return response

    routes = (Route("GET", "/v1/events", events, summary="s"),)
    async with (
        listen(application(routes), host="127.0.0.1", port=0, drain=0.1) as one,
        listen(application(routes), host="127.0.0.1", port=0, drain=0.1) as two,
        aiohttp.ClientSession() as session,
    ):
        broker = client(session, nobody(), *(f"http://127.0.0.1:{bound[1]}" for bound in (one, two)))
        told = []
        async with aclosing(broker.events()) as stream:
            async for event in stream:
                told.append(event)
                if len(told) == 3:
                    break
        assert seen == [None, "a.1", "a.2"]


async def test_a_request_under_way_is_waited_for_longer_than_a_broker_that_is_away() -> None:
    """A few seconds for the one, a minute for the other: the next broker has to be sure that the first has died."""
    clock = ManualClock()
    for problem, least, most in ((Unavailable("away"), 2, 10), (UnderWay("at this moment"), 50, 80)):
        begun, tries = clock.boot(), 0

        async def ask(problem: Problem = problem) -> None:
            nonlocal tries
            tries += 1
            raise problem

        with pytest.raises(type(problem)):
            await _while_time_goes_on(clock, patiently(clock, ask))
        assert least <= clock.boot() - begun <= most
        assert tries > 5


async def _while_time_goes_on(clock: ManualClock, work: Awaitable[object]) -> object:
    waiting = asyncio.gather(work, return_exceptions=True)
    await clock.until(waiting.done, step=0.1)
    (answer,) = waiting.result()
    if isinstance(answer, BaseException):
        raise answer
    return answer
