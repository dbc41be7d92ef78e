"""Another secret in the place of one that nears its last moment, so that who holds it need not ask.

The old one runs out by itself: whoever is connected with it has until then to connect anew. A secret that was taken
back, by an operator or by a change of its task's scope, is over and is not asked for again by itself.
"""

from __future__ import annotations

import asyncio
import secrets as random_bytes
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.client.broker import Broker
from broker.client.ending import patiently
from broker.client.secret import HeldSecret
from broker.errors import NotPossible
from broker.model.ids import LeaseId, TaskId
from broker.wire.credentials import AskCredential, CredentialTold
from ca.errors import Problem
from ca.runtime import log

AHEAD = timedelta(minutes=2)
"""How long before its last moment a secret is replaced; a short one after two thirds of its life."""

_SOON, _LATER = 0.05, 10.0
"""Seconds from look to look: at least, so that a broker that is away is not stormed; at most, for a suspended machine's
sake."""
_log = log.get(__name__)


@dataclass(slots=True, kw_only=True)
class _Kept:
    wish: AskCredential
    due: datetime | None
    """When another one is asked for; None is never."""
    busy: bool = False


class Refreshing:
    """The secrets of one task; `held` is the task's own table of them."""

    def __init__(self, broker: Broker, task: TaskId, held: dict[LeaseId, HeldSecret]) -> None:
        self._broker, self._task, self._held = broker, task, held
        self._kept: dict[HeldSecret, _Kept] = {}
        self._group: asyncio.TaskGroup | None = None

    async def ask(self, wish: AskCredential) -> CredentialTold:
        """Ask for one and acknowledge it; a lost answer is asked for again under the same key."""
        key = random_bytes.token_urlsafe(18)
        clock = self._broker.clock
        told = await patiently(clock, lambda: self._broker.ask(self._task, wish, key=key))
        await patiently(clock, lambda: self._broker.ack(told.lease.id))
        return told

    def keep(self, held: HeldSecret, wish: AskCredential, *, again: bool) -> None:
        """Replace it when its time comes, if `again`."""
        due = _due(self._broker.clock.now(), held.last) if again else None
        self._kept[held] = _Kept(wish=wish, due=due)
        if self._group is not None:
            self._group.create_task(self._follow(held, self._kept[held]))

    def hurry(self, held: HeldSecret) -> bool:
        """It ran out: replace it now. False if it is not to be replaced."""
        kept = self._kept.get(held)
        if kept is None or kept.due is None:
            return False
        kept.due = self._broker.clock.now()
        if self._group is not None:
            self._group.create_task(self._try(held, kept))
        return True

    async def now(self, held: HeldSecret) -> None:
        """Replace it, and give the old one back. Raises what the broker answers, and NotPossible."""
        kept, old = self._kept.get(held), held.lease
        if kept is None or held.over is not None:
            raise NotPossible("this secret is none of the task's any more")
        await self._replace(held, kept)
        await patiently(self._broker.clock, lambda: self._broker.revoke(old))

    async def go_on(self) -> None:
        """Replace what is due, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for held, kept in self._kept.items():
                group.create_task(self._follow(held, kept))
            await asyncio.Event().wait()

    async def _follow(self, held: HeldSecret, kept: _Kept) -> None:
        clock = self._broker.clock
        while kept.due is not None and held.over is None:
            await clock.sleep(max(_SOON, min((kept.due - clock.now()).total_seconds(), _LATER)))
            if kept.due is not None and kept.due <= clock.now() and held.over is None:
                await self._try(held, kept)
        if held.over is not None:
            self._kept.pop(held, None)

    async def _try(self, held: HeldSecret, kept: _Kept) -> None:
        if kept.busy:
            return
        kept.busy = True
        try:
            await self._replace(held, kept)
        except Problem as trouble:
            _log.warning("a secret could not be replaced before it runs out", role=held.role, error=trouble)
            if self._broker.clock.now() >= held.last:
                self._held.pop(held.lease, None)
                held.ended("it ran out, and another one was not to be had")
            elif not trouble.retryable:
                kept.due = held.last  # whatever refuses it now may think otherwise once more
        finally:
            kept.busy = False

    async def _replace(self, held: HeldSecret, kept: _Kept) -> None:
        told, before = await self.ask(kept.wish), held.last
        self._held.pop(held.lease, None)
        held.replaced(told)
        self._held[held.lease] = held
        gained = held.last > before
        if kept.due is not None:
            kept.due = _due(self._broker.clock.now(), held.last) if gained else None  # the task itself ends then


def _due(now: datetime, last: datetime) -> datetime:
    return max(last - AHEAD, now + (last - now) * 2 / 3)
