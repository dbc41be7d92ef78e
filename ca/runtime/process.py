"""The life of a process: it starts, is ready, stops in order, and dies aloud.

    async def main() -> None:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings.database))
            await stack.enter_async_context(background("reaper", reaper.tick, every=1.0, clock=clock))
            await until_stopped()

    sys.exit(run(main))

A component is an async context manager that is ready when entered and gone when left; a process is one stack of them,
read top to bottom, and stops in the reverse order. The law of the dead loop: work that goes on in the background
(`background`, `task`) and ends by anything but a retryable `Problem` takes the whole stack down with it, and the
process exits non-zero. A broker without its reaper would be alive and wrong.

SIGTERM and SIGINT ask for the ordered stop; before `until_stopped` is reached they cancel the start. A second SIGINT
cancels whatever the stop is waiting for; a third ends the process on the spot, which is safe (law 2) and leaves the
rest to the next start. Nobody may read this process's memory: no core is written and other processes of the same user
can't attach (`harden`).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from enum import IntEnum
from typing import Any, NoReturn

from ca.errors import Malformed, Problem
from ca.runtime import failpoint, log
from ca.runtime.clock import Clock
from ca.runtime.document import BadSettings
from ca.runtime.leaving import leave, still_wanted

Main = Callable[[], Coroutine[Any, Any, None]]
Tick = Callable[[datetime], Awaitable[object]]

_PR_SET_DUMPABLE = 4
_log = log.get(__name__)


class Ending(IntEnum):
    """How a process ends, for its exit code; the same numbers as a command's."""

    WELL = 0
    FAILED = 1
    MISUSED = 2
    FORCED = 130


class _Lifetime:
    """What signals and `stop_now` act upon; there is one while `run` runs."""

    def __init__(self, main: asyncio.Task[Any]) -> None:
        self.stopping = asyncio.Event()
        self.serving = False
        self.cancelled_to = Ending.FORCED
        self._main = main
        self._interrupts = 0

    def stop(self, reason: str) -> None:
        if self.stopping.is_set():
            return
        _log.info("stopping", reason=reason)
        self.stopping.set()
        if not self.serving:  # it may be waiting for something that never comes
            self.cancelled_to = Ending.FORCED if self._interrupts else Ending.WELL
            self._main.cancel()

    def interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self.stop("SIGINT")
        elif self._interrupts == 2:
            _log.warning("stopping without waiting", reason="second SIGINT")
            self.cancelled_to = Ending.FORCED
            self._main.cancel()
        else:
            os._exit(Ending.FORCED)


_lifetime: _Lifetime | None = None


def run(main: Main, *, dumpable: bool = False, tell: Callable[[Problem], object] | None = None) -> int:
    """Run `main` as this process's life and answer its exit code.

    0 when it returned; 1 when it failed or something in the background died; 2 when settings were wrong.
    `tell` hears each Problem that ended it, for whoever typed the command; without it they are logged.
    `dumpable` is for tools that must be traced, and for nothing that holds a secret.
    """
    harden(dumpable=dumpable)
    threading.excepthook = _thread_died
    try:
        failpoint.arm_from_environment()
    except Malformed as error:
        return _failed([BadSettings([f"{failpoint.POINTS}: {error}"])])
    try:
        return asyncio.run(_live(main, tell))
    except KeyboardInterrupt:
        return Ending.FORCED


async def until_stopped() -> None:
    """Return when this process is asked to stop."""
    lifetime = _current()
    lifetime.serving = True
    await lifetime.stopping.wait()


def stop_now(reason: str) -> None:
    """Ask for the ordered stop; call it from the event loop."""
    _current().stop(reason)


def fatal(error: BaseException) -> NoReturn:
    """End the process on the spot, from any thread.

    Only for a failure after which no statement about what is durable is true: an I/O error at COMMIT.
    """
    _log.error("the process can't go on", error=error)
    sys.stderr.flush()
    os._exit(Ending.FAILED)


def harden(*, dumpable: bool = False) -> None:
    """Let nobody read this process's memory: no core file, no tracing by others of the same user.

    Raises:
        RuntimeError: the system refuses; a process that holds secrets must not run then.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if dumpable:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise RuntimeError(f"can't forbid core dumps and tracing: {os.strerror(ctypes.get_errno())}")


def take_descriptors() -> int:
    """Raise the soft limit of open files to the hard one; answers it.

    A server that strangers connect to must not run out of them at the usual 1024: an ending needs one for its target.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Wake:
    """Wakes one waiting loop; several calls before it looks count as one. For use on the event loop's own thread."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake it, now or as soon as it waits."""
        self._event.set()

    async def wait(self) -> None:
        """Return at the next `set`, or at once when one came since the last return."""
        await self._event.wait()
        self._event.clear()


@asynccontextmanager
async def background(
    name: str,
    tick: Tick,
    *,
    every: float,
    clock: Clock,
    wake: Wake | None = None,
    count: Callable[[str], None] | None = None,
) -> AsyncIterator[None]:
    """Call `tick(now)` at once and then each `every` seconds, or sooner when woken; never twice at the same time.

    A retryable Problem is logged and the next tick tries again; anything else ends the process. `count` is told `done`
    or `retried` after each tick.
    """

    async def loop() -> None:
        while True:
            outcome = "done"
            try:
                await tick(clock.now())
            except Exception as error:
                if not is_retryable(error):
                    raise
                outcome = "retried"
                _log.warning("will be tried again", loop=name, error=error)
            if count is not None:
                count(outcome)
            still_wanted()
            await _first_of(clock.sleep(every), None if wake is None else wake.wait())

    async with task(name, loop):
        yield


@asynccontextmanager
async def task(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `work` while the block runs, under the law of the dead loop: it may not return by itself, nor fail."""
    left = False

    async def live() -> None:
        try:
            await work()
        except asyncio.CancelledError as error:
            if left:
                raise
            raise RuntimeError(f"the background work `{name}` was cancelled, and not by leaving") from error
        except Exception as error:
            _log.error("died", loop=name, error=error)
            raise
        raise RuntimeError(f"the background work `{name}` ended by itself")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(live(), name=name)
        try:
            yield
        finally:
            left = True
            leave(running)


def is_retryable(error: BaseException) -> bool:
    """Whether `error`, or everything in it, is a Problem that may be gone the next time."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_retryable(inner) for inner in error.exceptions)
    return isinstance(error, Problem) and error.retryable


class Part:
    """One thing a process waits for before it is ready."""

    __slots__ = ("_owner", "awaited")

    def __init__(self, owner: Readiness) -> None:
        self._owner = owner
        self.awaited: str | None = "its start"

    def ready(self) -> None:
        """It can serve."""
        self.awaited = None
        self._owner.changed()

    def waiting(self, what: str) -> None:
        """It can't serve until `what`."""
        self.awaited = what
        self._owner.changed()


class Readiness:
    """Which parts of a process can serve, and what the others wait for."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._all = asyncio.Event()

    def part(self, name: str) -> Part:
        """The part `name`; it waits for its start until it says otherwise."""
        if name not in self._parts:
            self._parts[name] = Part(self)
            self.changed()
        return self._parts[name]

    @property
    def is_ready(self) -> bool:
        """Whether there is a part and none waits."""
        return bool(self._parts) and all(part.awaited is None for part in self._parts.values())

    async def until_ready(self) -> None:
        """Return when every part is ready."""
        await self._all.wait()

    def changed(self) -> None:
        """Called by parts."""
        if self.is_ready:
            self._all.set()
        else:
            self._all.clear()

    def report(self) -> dict[str, Any]:
        """What `/readyz` answers."""
        parts = {
            name: {"ready": part.awaited is None, "waiting_for": part.awaited} for name, part in self._parts.items()
        }
        return {"ready": self.is_ready, "parts": parts}


def _current() -> _Lifetime:
    if _lifetime is None:
        raise RuntimeError("only a process started by run() can be stopped")
    return _lifetime


async def _live(main: Main, tell: Callable[[Problem], object] | None) -> int:
    global _lifetime  # noqa: PLW0603 - a process has one life
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    assert own is not None
    _lifetime = lifetime = _Lifetime(own)
    loop.add_signal_handler(signal.SIGTERM, lifetime.stop, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, lifetime.interrupted)
    loop.set_exception_handler(_unhandled)
    try:
        await main()
    except asyncio.CancelledError:
        return lifetime.cancelled_to
    except Exception as error:  # noqa: BLE001 - whatever it was ends the process, and is told
        return _failed(list(_leaves(error)), tell)
    finally:
        _lifetime = None
    return Ending.WELL


def _failed(errors: list[BaseException], tell: Callable[[Problem], object] | None = None) -> int:
    for error in errors:
        if tell is not None and isinstance(error, Problem):
            tell(error)
            continue
        if isinstance(error, BadSettings):
            for fault in error.errors:
                _log.error("settings refused", fault=fault)
            continue
        _log.error("ended", error=error)
    return Ending.MISUSED if all(isinstance(error, BadSettings) for error in errors) else Ending.FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def _first_of(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None] | None) -> None:
    """Wait for either; the other is cancelled."""
    if second is None:
        await first
        return
    waiting = {asyncio.create_task(first), asyncio.create_task(second)}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print with the repr of everything it knows."""
    error = context.get("exception")
    _log.error("unhandled", asyncio=str(context.get("message", "")), error=error)


def _thread_died(arguments: threading.ExceptHookArgs) -> None:
    _log.error("a thread died", thread=arguments.thread.name if arguments.thread else None, error=arguments.exc_value)
