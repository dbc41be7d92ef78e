"""How a command comes to a broker: with this process's own identity, or on the operators' socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from pydantic import BaseModel

from attestor.client.errors import NoIdentity, Unreachable
from attestor.client.source import X509Source
from broker.client.address import BROKER_VARIABLE, START, find_admin, find_broker, find_workload_api, places_of
from broker.client.broker import Broker
from broker.command.options import Where
from broker.command.task_keys import find as find_key
from broker.wire.body import Page
from ca.errors import NotFound, Problem
from ca.runtime import log
from ca.runtime.terminal import Console

T = TypeVar("T", bound=BaseModel)

PATIENCE = 5.0
"""Seconds a command waits for an identity that may be on its way."""


@asynccontextmanager
async def as_agent(console: Console, where: Where) -> AsyncIterator[Broker]:
    """With the identity the Workload API gives this process. Raises NoIdentity, Unreachable."""
    places = places_of(where.state)
    url = find_broker(where.broker, places)
    async with (
        identity(console, find_workload_api(where.workload_api, places)) as source,
        Broker.connect(source, url) as broker,
    ):
        yield broker


@asynccontextmanager
async def as_operator(where: Where) -> AsyncIterator[Broker]:
    """On the operators' socket. Raises Unreachable."""
    log.setup("sojourn", level="error")
    async with Broker.on_socket(find_admin(where.admin, places_of(where.state))) as broker:
        yield broker


@asynccontextmanager
async def as_either(console: Console, where: Where) -> AsyncIterator[Broker]:
    """As an operator where this user may be one, else with an identity; a broker that is named, with an identity."""
    named = where.broker or os.environ.get(BROKER_VARIABLE)
    door = as_agent(console, where) if named or not _may_operate(where) else as_operator(where)
    async with door as broker:
        yield broker


@asynccontextmanager
async def with_key(console: Console, where: Where, task: str) -> AsyncIterator[Broker]:
    """As whoever opened `task` here with `sojourn task open`. Raises NotFound: its key is not here."""
    key = find_key(places_of(where.state), task)
    if key is None:
        raise NotFound(f"the key of this task is not here; an operator ends it with: sojourn task kill {task}")
    async with as_agent(console, where) as broker:
        yield broker.proven_by(key)


@asynccontextmanager
async def reading(console: Console, where: Where, task: str) -> AsyncIterator[Broker]:
    """As whoever may look at `task`: its opener when its key is here, else an operator."""
    known = find_key(places_of(where.state), task) is not None
    async with with_key(console, where, task) if known else as_operator(where) as broker:
        yield broker


@asynccontextmanager
async def identity(console: Console, address: str) -> AsyncIterator[X509Source]:
    """Who this process is. A command does not wait for ever: it says what is missing."""
    log.setup("sojourn", level="error")
    troubles: list[Problem] = []
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(PATIENCE) as limit:

                def waiting(problem: Problem) -> None:
                    troubles.append(problem)
                    if isinstance(problem, Unreachable) and not known:
                        limit.reschedule(0)

                known: list[X509Source] = []
                with console.progress("waiting for an identity"):
                    known.append(await stack.enter_async_context(X509Source.open(address, waiting=waiting)))
        except TimeoutError:
            raise _missing(address, troubles) from None
        yield known[0]


async def every(page: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    """All parts of a list, one after the other."""
    found: list[T] = []
    after: str | None = None
    while True:
        part = await page(after)
        found += part.items
        after = part.next
        if after is None:
            return found


def _may_operate(where: Where) -> bool:
    try:
        return os.access(find_admin(where.admin, places_of(where.state)), os.R_OK | os.W_OK)
    except Problem:
        return False


def _missing(address: str, troubles: list[Problem]) -> Problem:
    last = troubles[-1] if troubles else None
    if isinstance(last, NoIdentity):
        return NoIdentity(f"{last}; `sojourn rule explain --pid PID` says what was seen and why no rule matched")
    if last is None or isinstance(last, Unreachable):
        return Unreachable(f"no Workload API answers at `{address}`, {START}")
    return last
