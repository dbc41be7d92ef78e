"""A piece of work that runs beside the body of a `with`, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from ca.runtime.leaving import leave


@asynccontextmanager
async def beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run `work` until the body is left; if it fails first the body is cancelled and its error raised instead.

    One error leaves as itself and not in a group, so that whoever wraps a body in this need not know.
    """
    left = False

    async def live() -> None:
        try:
            await work
        except asyncio.CancelledError as error:
            if left:
                raise
            raise RuntimeError("what runs beside was cancelled, and not by leaving") from error

    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(live())
            try:
                yield
            finally:
                left = True
                leave(running)
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        raise
    finally:
        work.close()  # a body that was left at once was left before it began
