"""Whoever leaves a block is not kept by the work beside it, though that loses its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from attestor.client.backoff import Backoff
from attestor.client.beside import beside
from ca.errors import Unavailable
from ca.runtime.clock import SystemClock
from ca.runtime.leaving import leave, still_wanted
from ca.runtime.process import background, task

CLOCK = SystemClock()


class Deaf:
    """A call that makes an error of its cancellation, as grpclib does when the connection breaks at that moment."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()

    async def call(self, *_: object) -> None:
        """Wait for an answer."""
        self.calls += 1
        self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unavailable("the connection broke") from None

    async def for_ever(self) -> None:
        """Call again and again."""
        backoff = Backoff(CLOCK, first=0.001)
        while True:
            try:
                await self.call()
            except Unavailable:
                still_wanted()
                await backoff.wait()

    async def quietly(self, *_: object) -> None:
        """A tick that tells nobody."""
        try:
            await self.call()
        except Unavailable:
            return


Beside = Callable[[Deaf], AbstractAsyncContextManager[None]]
WAYS: dict[str, Beside] = {
    "a tick that fails": lambda work: background("it", work.call, every=0.001, clock=CLOCK),
    "a tick that does not tell": lambda work: background("it", work.quietly, every=0.001, clock=CLOCK),
    "a task": lambda work: task("it", work.for_ever),
    "beside": lambda work: beside(work.for_ever()),
}


@pytest.mark.parametrize("way", WAYS)
async def test_it_ends_all_the_same(way: str) -> None:
    """It does not call once more."""
    work = Deaf()
    async with asyncio.timeout(60), WAYS[way](work):
        await work.called.wait()
    assert work.calls == 1


async def test_who_was_not_left_goes_on() -> None:
    """Neither a task nobody left, nor one beside it."""
    async with asyncio.TaskGroup() as group:
        left = group.create_task(Deaf().for_ever())
        leave(left)
        still_wanted()
    assert left.cancelled()
