"""One asyncio loop in one thread of its own, for callers that have none; broken and told so wherever it can't serve.

It serves any number of threads. It does not serve a coroutine, whose loop would stand still meanwhile, nor a child made
by fork, which has no such thread and must not use its parent's connections.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from broker.errors import NotPossible

T = TypeVar("T")


class LoopThread:
    """Runs `main` on a loop of its own; `call` runs more there until `main` has ended."""

    def __init__(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._main = main
        self._pid = os.getpid()
        self._ended: BaseException | None = None
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # atexit still finds it alive

    def start(self) -> None:
        """Begin. Raises NotPossible: this thread runs a loop already."""
        self._check()
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this is the process that made it, and no child of it."""
        return os.getpid() == self._pid

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` on the loop and return what it returns; an interrupt here cancels it there.

        Raises:
            NotPossible: this thread runs a loop itself, or is in a child made by fork, or `main` has ended well.
            What `main` ended with, if it is over, or ends meanwhile.
        """
        self._check()
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            self._thread.join()  # it cancels calls only where it ends
            raise self._why() from None
        except BaseException:
            future.cancel()
            raise

    def tell(self, callback: Callable[[], object]) -> None:
        """Have `callback` called on the loop, if it still runs."""
        with self._lock:
            if self._loop is not None and not self._over:
                self._loop.call_soon_threadsafe(callback)

    def join(self) -> None:
        """Return when `main` has ended. Raises what it ended with."""
        self._check()
        self._thread.join()
        if self._ended is not None:
            raise self._ended

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if self._loop is None or self._over:
                raise self._why()
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
            self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def _why(self) -> BaseException:
        return self._ended or NotPossible("the task was left: nothing more can be asked for in it")

    def _check(self) -> None:
        if not self.here:
            raise NotPossible("a task belongs to the process that opened it: a child made by fork opens its own")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise NotPossible("this thread runs an event loop, which would stand still: use broker.client.task there")

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001 - raised to whoever waits for it
            self._ended = error
        finally:
            with self._lock:
                self._over = True
                lost = list(self._calls)
            for future in lost:
                future.cancel()

    async def _live(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
        await self._main()
