"""Tells other parties what ended, until each has answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.lifecycle.schedule import backoff
from broker.lifecycle.world import World
from broker.store import outbox
from broker.store.outbox import Message
from ca.errors import Problem
from ca.runtime import log

_log = log.get(__name__)

_BATCH = 100

Tell = Callable[[Message], Awaitable[None]]
"""Tell a party, and return when it has taken it in; the same message may be told again."""


@dataclass(slots=True)
class OutboxLoop:
    """The reconciler of what is owed."""

    world: World
    parties: Mapping[str, Tell]

    async def tick(self, now: datetime) -> int:
        """Tell what is due; answers how many were taken in."""
        told = 0
        for party, tell in self.parties.items():
            due = await self.world.database.read(lambda tx, party=party: outbox.due(tx, party, now, _BATCH))  # type: ignore[misc]
            for message in due:
                told += await self._one(tell, message, now)
            if len(due) == _BATCH:
                self.world.outbox.set()
        return told

    async def _one(self, tell: Tell, message: Message, now: datetime) -> int:
        try:
            await tell(message)
        except Problem as problem:
            _log.warning("a party could not be told", party=message.party, message=message.id, error=problem)
            later = now + backoff(message.attempts)
            await self.world.database.write(lambda tx: outbox.put_off(tx, message, later), ending=True)
            return 0
        await self.world.database.write(lambda tx: outbox.done(tx, message), ending=True)
        return 1
