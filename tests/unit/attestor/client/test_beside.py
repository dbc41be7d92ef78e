"""Work beside a body: it ends with it, and whichever fails first says why."""

from __future__ import annotations

import asyncio
import gc

import pytest

from attestor.client.beside import beside


class Watched:
    """Goes on until it is cancelled, and says how far it is."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def fails() -> None:
    """At once."""
    raise ValueError("beside")


async def test_it_ends_with_the_body() -> None:
    """Whoever leaves has nothing running behind it."""
    work = Watched()
    async with beside(work.run()):
        await work.begun.wait()
    assert work.ended.is_set()


async def test_an_error_of_the_body_leaves_as_itself() -> None:
    """And not in a group."""
    work = Watched()

    async def body() -> None:
        async with beside(work.run()):
            await work.begun.wait()
            raise KeyError("tulip")

    with pytest.raises(KeyError, match="tulip"):
        await body()
    assert work.ended.is_set()


async def test_an_error_beside_cancels_the_body_and_is_raised() -> None:
    """As itself."""
    with pytest.raises(ValueError, match="beside"):
        async with beside(fails()):
            await asyncio.Event().wait()


async def test_what_is_cancelled_by_somebody_else_is_an_error() -> None:
    """The body would go on without it otherwise, and not know."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="not by leaving"):
        async with beside(cancelled()):
            await asyncio.Event().wait()


@pytest.mark.filterwarnings("error")
async def test_a_body_that_is_left_at_once_leaves_nothing_that_was_never_begun() -> None:
    """No coroutine that nobody ever awaited."""
    with pytest.raises(KeyError):
        async with beside(fails()):
            raise KeyError("tulip")
    gc.collect()
