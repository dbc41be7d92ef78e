"""A task this process works in: its secrets, its heartbeat, and what the broker tells of it.

Used by `broker.client.task`, which opens it, and by whoever watches a task it did not open (`until_gone`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import TypeVar

from attestor.client.backoff import Backoff, scattered
from attestor.client.beside import beside
from broker.client.asking import asking
from broker.client.broker import Broker
from broker.client.ending import ending, outcome_of, patiently, until_gone
from broker.client.refreshing import Refreshing
from broker.client.secret import Changed, HeldSecret
from broker.client.stream import Snapshot
from broker.model.event import EventKind
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import CloseReason
from broker.model.task import LIVE
from broker.wire.body import parse_moment
from broker.wire.credentials import AskCredential
from broker.wire.events import EventLine
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, Heartbeat, TaskTold
from ca.errors import Denied, NotFound, Problem, Stale
from ca.runtime import log
from ca.runtime.leaving import still_wanted

T = TypeVar("T")

HEARTBEAT = timedelta(seconds=20)
"""How often a task promises to be heard of; three missed beats end it."""

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
        self._refreshing = Refreshing(broker, self.id, self.held)

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
        refresh: bool = True,
        on_change: Changed | None = None,
    ) -> HeldSecret:
        """Ask for a secret of `role` and acknowledge it.

        A lost answer is asked for again under the same key: the first secret is dead then, and there is never a second
        one. Some time before its last moment another one takes its place in the same object, unless `refresh` is false:
        whoever waits in `changed` goes on, and `on_change` is called. Raises what the broker answers: Refused names the
        policies and the nearest change.
        """
        wish = asking(AskCredential, role=role, ttl=ttl, confidence=confidence, tool=tool, destination=destination)
        held = HeldSecret(await self._refreshing.ask(wish), on_change)
        self.held[held.lease] = held
        self._refreshing.keep(held, wish, again=refresh)
        return held

    async def refresh(self, held: HeldSecret) -> None:
        """Have another secret take the place of `held` now, because the target refuses it; the old one is given back.

        Raises what the broker answers, and NotPossible: it is none of this task's, or is over.
        """
        await self._refreshing.now(held)

    async def end(self, outcome: EndTask | None = None, *, wait: bool = False) -> ReportTold:
        """End the task now and read its closing report; with `wait` once its access is verified to be gone.

        Leaving the block does nothing more then.
        """
        await self._end(outcome or EndTask())
        return await self.until_gone() if wait else await self._patiently(self.report)

    async def _end(self, outcome: EndTask) -> None:
        self._over = True
        self.told = await self._patiently(lambda: self._broker.end(self.id, outcome))
        self._forget("the task ended")

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
        async with beside(self._listen()), beside(self._refreshing.go_on()):
            await self._beat()

    @property
    def _every(self) -> float:
        """Seconds from beat to beat: one may be lost and the promise is kept."""
        return (self.told.heartbeat or HEARTBEAT).total_seconds() / 2

    async def _beat(self) -> None:
        backoff = Backoff(self._broker.clock, spread=scattered)
        while True:
            listed = list(self.held)
            try:
                beat = await self._broker.beat(self.id, Heartbeat(leases=listed))
            except (NotFound, Denied, Stale):
                await self._look()
            except Problem as trouble:
                _log.debug("a heartbeat was not heard", error=trouble)
                still_wanted()
                await backoff.wait()
                continue
            else:
                backoff.reset()
                self._drop(set(listed) - set(beat.acknowledged), "the broker holds it for over")
            await self._broker.clock.sleep(self._every)

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
            reason = str(event.body.get("reason") or "it was taken back")
            if reason != CloseReason.RAN_OUT or not self._refreshing.hurry(held):
                self._drop({held.lease}, reason)

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
            await self._end(outcome_of(error))
        except Problem as trouble:
            if error is None:
                raise
            _log.warning("the task could not be ended, its silence will end it", task=self.id, error=trouble)
