"""A task around a piece of work, for programs without an event loop.

    from broker.client.blocking import task

    with task(purpose="reconcile november", roles=["orders-db/readonly"]) as work:
        secret = work.secret("orders-db/readonly")

The same task as `broker.client.task`, with the same types, kept alive by a thread of its own: a body that computes for
an hour stays heard of. Any thread of this process may use `work`. What can't be done to a thread is to cancel it: when
the task is ended from outside, the next use of `work`, and leaving the block, raise `TaskEnded`; `work.ended` says it
at any time, and `on_end` hears it at once. A child made by fork opens tasks of its own; leaving the block there does
nothing. A program that ends without leaving the block ends its task too.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from broker.client import task as asynchronous
from broker.client.living import HEARTBEAT, LiveTask, TaskEnded
from broker.client.loop_thread import LoopThread
from broker.client.secret import HeldSecret
from broker.model.ids import LeaseId, TaskId
from broker.model.scope import Sensitivity
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, TaskTold
from ca.errors import Problem
from ca.runtime import log

__all__ = ["TaskEnded", "Work", "task"]

T = TypeVar("T")
_log = log.get(__name__)


@contextmanager
def task(
    *,
    purpose: str,
    roles: Sequence[str] = (),
    tools: Sequence[str] = (),
    destinations: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
    lasts: timedelta | None = None,
    heartbeat: timedelta = HEARTBEAT,
    parent: str | None = None,
    broker: str | None = None,
    on_end: Callable[[TaskEnded], object] | None = None,
) -> Iterator[Work]:
    """A task bound to this process; what is said and raised is as in `broker.client.task.task`.

    `broker` is an address. `on_end` is called, by a thread of ours, when somebody else ended the task.

    Raises:
        NotPossible: this thread runs an event loop.
    """
    asked = {
        "purpose": purpose,
        "roles": roles,
        "tools": tools,
        "destinations": destinations,
        "sensitivity": sensitivity,
        "lasts": lasts,
        "heartbeat": heartbeat,
        "parent": parent,
        "broker": broker,
    }
    work = Work(_Holder(asked, on_end))
    atexit.register(work.close)
    try:
        yield work
    except BaseException as error:
        work.close(error)
        raise
    else:
        work.close()
    finally:
        atexit.unregister(work.close)


class Work:
    """A task this process works in; made by `task`. Every method waits, and may be called from any thread."""

    def __init__(self, holder: _Holder) -> None:
        self._holder = holder
        self._live = holder.open()

    @property
    def id(self) -> TaskId:
        """Its id; never a capability."""
        return self._live.id

    @property
    def told(self) -> TaskTold:
        """The task as the broker last told it."""
        return self._live.told

    @property
    def held(self) -> Mapping[LeaseId, HeldSecret]:
        """The secrets it holds."""
        return dict(self._live.held)

    @property
    def ended(self) -> TaskEnded | None:
        """Who else ended the task, and why; None while it lives."""
        return self._holder.ended

    def secret(self, role: str, **said: Any) -> HeldSecret:
        """Ask for a secret of `role`, as `LiveTask.secret` does."""
        return self._holder.use(lambda: self._live.secret(role, **said))

    def refresh(self, secret: HeldSecret) -> None:
        """Have another secret take its place now, because the target refuses it."""
        self._holder.use(lambda: self._live.refresh(secret))

    def changed(self, secret: HeldSecret, seen: int | None = None) -> int:
        """Return the next generation of a secret once it is here, or the secret is over."""
        return self._holder.use(lambda: secret.changed(seen))

    def until_over(self, secret: HeldSecret) -> str:
        """Return when a secret is good for nothing any more, and why."""
        return self._holder.use(secret.until_over)

    def report(self) -> ReportTold:
        """What was issued, and what is verified gone."""
        return self._holder.use(self._live.report)

    def end(self, outcome: EndTask | None = None, *, wait: bool = False) -> ReportTold:
        """End the task now, and read its closing report, as `LiveTask.end` does."""
        return self._holder.use(lambda: self._live.end(outcome, wait=wait))

    def close(self, error: BaseException | None = None) -> None:
        """End the task for whoever leaves its block with `error`; twice is once, and in a child by fork it is nothing.

        Raises TaskEnded, if somebody else ended it and `error` doesn't say so already.
        """
        if self._holder.thread.here:
            self._holder.close(error)


class _Holder:
    """Has the task held open on its loop, entered and left by one and the same coroutine."""

    def __init__(self, asked: Mapping[str, Any], on_end: Callable[[TaskEnded], object] | None) -> None:
        self._asked, self._on_end = asked, on_end
        self._opened: Future[LiveTask] = Future()
        self._left: asyncio.Event | None = None
        self._leaving = False
        self._error: BaseException | None = None
        self._closing = threading.Lock()
        self.ended: TaskEnded | None = None
        self.thread = LoopThread("sojourn-task", self._hold)

    def open(self) -> LiveTask:
        self.thread.start()
        try:
            return self._opened.result()
        except BaseException:  # interrupted while it was being opened
            self._leave(KeyboardInterrupt())
            raise

    def use(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` on the loop. Raises TaskEnded once somebody else ended the task: what it stood on is closed."""
        if self.ended is not None:
            raise self.ended
        try:
            return self.thread.call(work)
        except RuntimeError:
            if self.ended is not None:
                raise self.ended from None
            raise

    def close(self, error: BaseException | None) -> None:
        with self._closing:
            self._leave(error)
            try:
                self.thread.join()
            except Problem:
                if error is None:
                    raise

    def _leave(self, error: BaseException | None) -> None:
        self._error, self._leaving = self._error or error, True
        self.thread.tell(lambda: None if self._left is None else self._left.set())

    async def _hold(self) -> None:
        self._left = asyncio.Event()
        if self._leaving:
            self._left.set()
        try:
            async with asynchronous.task(**self._asked) as live:
                self._opened.set_result(live)
                await self._left.wait()
                await live.leave(self._error)
        except TaskEnded as ended:
            self.ended = ended
            self._hear(ended)
            raise
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            raise

    def _hear(self, ended: TaskEnded) -> None:
        if self._on_end is None:
            return
        try:
            self._on_end(ended)
        except Exception as error:  # noqa: BLE001 - the caller's own; the end of the task is told all the same
            _log.warning("what hears of a task's end failed", error=error)
