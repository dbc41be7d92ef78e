"""A task this process works in: its secrets, its heartbeat, and what the broker tells of it.

Used by `broker.client.task`, which opens it, and by whoever watches a task it did not open (`until_gone`).
"""

from __future__ import annotations

import asyncio
import secrets as random_bytes
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import TypeVar

from attestor.client.backoff import Backoff
from attestor.client.beside import beside
from broker.client.asking import asking
from broker.client.broker import Broker
from broker.client.secret import HeldSecret
from broker.client.stream import Snapshot
from broker.errors import UnderWay
from broker.model.event import EventKind
from broker.model.ids import LeaseId, TaskId
from broker.model.report import Fate
from broker.model.task import LIVE
from broker.wire.body import parse_moment
from broker.wire.credentials import AskCredential
from broker.wire.events import EventLine
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, Heartbeat, TaskTold
from ca.errors import Denied, NotFound, Problem, Stale, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock

T = TypeVar("T")

HEARTBEAT = timedelta(seconds=20)
"""How often a task promises to be heard of; three missed beats end it."""

_TRIES = 6
_UNDER_WAY = 60.0
"""Seconds for which the same request is waited for that another broker is answering, or was."""
_OPEN = frozenset({Fate.IN_USE, Fate.ENDING})
_GIVES_BACK = frozenset({EventKind.LEASE_REVOKING, EventKind.LEASE_ACCESS_ENDED, EventKind.LEASE_CLOSED})
_log = log.get(__name__)


class TaskEnded(Denied):
    """The task was ended by somebody else than the work in it."""

    code = "task-ended"


class LiveTask:
    """A task this process works in; made by `task`."""

    def __init__(self, broker: Broker, told: TaskTold) -> None:
        self.told = told
        self.held: dict[LeaseId, HeldSecret] = {}
        self._broker = broker
        self._over = False

    @property
    def id(self) -> TaskId:
        """Its id; never a capability."""
        return self.told.id

    async def secret(
        self,
        role: str,
        *,
        ttl: timedelta | None = None,
        confidence: int = 0,
        tool: str | None = None,
        destination: str | None = None,
    ) -> HeldSecret:
        """Ask for a secret of `role` and acknowledge it.

        A lost answer is asked for again under the same key: the first secret is dead then, and there is never a second
        one. Raises what the broker answers: Refused names the policies and the nearest change.
        """
        wish = asking(AskCredential, role=role, ttl=ttl, confidence=confidence, tool=tool, destination=destination)
        key = random_bytes.token_urlsafe(18)
        told = await self._patiently(lambda: self._broker.ask(self.id, wish, key=key))
        await self._patiently(lambda: self._broker.ack(told.lease.id))
        held = HeldSecret(told)
        self.held[held.lease] = held
        return held

    async def end(self, outcome: EndTask) -> TaskTold:
        """End the task now; leaving the block does nothing more then."""
        self._over = True
        self.told = await self._patiently(lambda: self._broker.end(self.id, outcome))
        self._forget("the task ended")
        return self.told

    async def report(self) -> ReportTold:
        """What was issued, and what is verified gone."""
        return await self._broker.report(self.id)

    async def until_gone(self) -> ReportTold:
        """Return when everything that can be taken back is verified to be gone. Raises Unreachable."""
        return await until_gone(self._broker, self.id)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(self._broker.clock, call)

    async def live(self) -> None:
        """Beat and listen until the task ends; raises TaskEnded then."""
        async with beside(self._listen()):
            await self._beat()

    async def _beat(self) -> None:
        every = (self.told.heartbeat or HEARTBEAT).total_seconds() / 2
        backoff = Backoff(self._broker.clock)
        while True:
            listed = list(self.held)
            try:
                beat = await self._broker.beat(self.id, Heartbeat(leases=listed))
            except (NotFound, Denied, Stale):
                await self._look()
            except Problem as trouble:
                _log.debug("a heartbeat was not heard", error=trouble)
                await backoff.wait()
                continue
            else:
                backoff.reset()
                self._drop(set(listed) - set(beat.acknowledged), "the broker holds it for over")
            await self._broker.clock.sleep(every)

    async def _listen(self) -> None:
        try:
            async with aclosing(self._broker.events(self.id)) as events:
                async for event in events:
                    await self._take(event)
        except TaskEnded:
            raise
        except Problem as trouble:
            _log.debug("no events are to be had, the heartbeat alone tells of an end", error=trouble)

    async def _take(self, event: EventLine | Snapshot) -> None:
        if isinstance(event, Snapshot):
            self._drop(set(self.held) - event.leases, "the broker holds it for over")
            await self._look()
        elif event.kind is EventKind.TASK_ENDED and event.task == self.id:
            await self._look()
        elif event.lease is not None and event.lease in self.held:
            self._note(self.held[event.lease], event)

    def _note(self, held: HeldSecret, event: EventLine) -> None:
        if event.kind is EventKind.LEASE_RENEWED:
            until = event.body.get("until")
            if isinstance(until, str):
                held.renewed(parse_moment(until))
        elif event.kind in _GIVES_BACK:
            self._drop({held.lease}, str(event.body.get("reason") or "it was taken back"))

    async def _look(self) -> None:
        """Ask how the task stands. Raises TaskEnded: it is over, and this is not the body's own doing."""
        try:
            self.told = await self._broker.task(self.id)
        except NotFound as error:
            self._finish()
            raise TaskEnded("the broker knows this task no more") from error
        except Problem as trouble:
            _log.debug("the task could not be looked at", error=trouble)
            return
        if self.told.state not in LIVE and not self._over:
            self._finish()
            raise TaskEnded(ending(self.told), task=self.id)

    def _finish(self) -> None:
        self._over = True
        self._forget("the task ended")

    def _forget(self, why: str) -> None:
        self._drop(set(self.held), why)

    def _drop(self, leases: set[LeaseId], why: str) -> None:
        for lease in leases:
            held = self.held.pop(lease, None)
            if held is not None:
                held.ended(why)

    async def leave(self, error: BaseException | None) -> None:
        """End the task for whoever leaves the block with `error`, unless it is over already."""
        if self._over:
            return
        try:
            await self.end(_outcome(error))
        except Problem as trouble:
            if error is None:
                raise
            _log.warning("the task could not be ended, its silence will end it", task=self.id, error=trouble)


async def patiently(clock: Clock, call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the broker can't answer now; twice must be once.

    A request that is under way elsewhere is waited for longer: who answers it may have died with it, and the next one
    has to be sure of that.
    """
    backoff, tries, until = Backoff(clock), 1, clock.boot() + _UNDER_WAY
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


def _outcome(error: BaseException | None) -> EndTask:
    """How a task ends whose block was left with `error`: told by the error's kind, never by its text."""
    if error is None:
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
