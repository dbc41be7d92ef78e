"""How a task ends, and how its end is told; and waiting for an answer that may come later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attestor.client.backoff import Backoff, scattered
from broker.client.broker import Broker
from broker.errors import UnderWay
from broker.model.report import Fate
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, TaskTold
from ca.errors import Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock

T = TypeVar("T")

_TRIES = 7
_UNDER_WAY = 60.0
"""Seconds for which the same request is waited for that another broker is answering, or was."""
_OPEN = frozenset({Fate.IN_USE, Fate.ENDING})
_log = log.get(__name__)


async def patiently(clock: Clock, call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the broker can't answer now; twice must be once.

    A request that is under way elsewhere is waited for longer: who answers it may have died with it, and the next one
    has to be sure of that.
    """
    backoff, tries, until = Backoff(clock, spread=scattered), 1, clock.boot() + _UNDER_WAY
    while True:
        try:
            return await call()
        except UnderWay as trouble:
            if clock.boot() >= until:
                raise
            _log.debug("asked again", error=trouble)
        except Unavailable as trouble:
            if tries == _TRIES:
                raise
            tries += 1
            _log.debug("asked again", error=trouble)
        await backoff.wait()


def outcome_of(error: BaseException | None) -> EndTask:
    """How a task ends whose block was left with `error`: told by the error's kind, never by its text."""
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        return EndTask()
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return EndTask(outcome="cancelled", words="the work in it was cancelled")
    return EndTask(outcome="failed", words=f"left by {type(error).__name__}")


async def until_gone(broker: Broker, task: str) -> ReportTold:
    """Return when of everything an ended task was given nobody can use anything any more that can be taken back."""
    backoff = Backoff(broker.clock, longest=1.0)
    while True:
        report = await broker.report(task)
        if report.ended_at is not None and not any(line.fate in _OPEN for line in report.leases):
            return report
        await backoff.wait()


def ending(told: TaskTold) -> str:
    """Why a task is over, in the words of the one who caused it."""
    reason = f"the task is `{told.state}`"
    if told.end_reason is not None:
        reason += f" ({told.end_reason})"
    return f"{reason}: {told.end_words}" if told.end_words else reason
