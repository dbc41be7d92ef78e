"""Which of the brokers over one store live, and whose turn it is.

A store that only one process can hold (SQLite, locked for the process's life) makes this simple: every broker id but
ours belongs to the dead. A shared store needs a claim: each broker raises its counter every second, and one whose
counter stood still for `patience` seconds *of our own boot time* is taken for dead. No time is written, so no clock is
compared. Only what was looked at counts: a broker that was frozen itself, or whose whole machine was, has not seen the
others stand still meanwhile.

Being taken for dead costs a broker that was only frozen no more than what it had just begun: its intents are given up
by compare-and-swap, and what its calls still bring back is destroyed. So nobody leads, and nobody has to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.lifecycle.world import World
from broker.store import brokers
from ca.runtime.database import Transaction

BEAT = 1.0
"""Seconds between two beats."""

GRACE = timedelta(seconds=1.5)
"""For how long what is due for a lease is left to the broker that last touched it."""


@dataclass(slots=True)
class _Seen:
    """A counter, and for how many seconds it was seen not to move; None: it has none, or none any more."""

    counter: int | None
    still: float = 0.0


@dataclass(slots=True)
class Claims:
    """What was seen of other brokers; `exclusive` when the store is held by one process alone."""

    exclusive: bool = True
    patience: float = 10.0
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _looked_at: float | None = None

    async def tick(self, world: World) -> None:
        """Say that this broker lives, look at the others, and bury those that are dead. Raises Unavailable."""
        if self.exclusive:
            return

        async def unit(tx: Transaction) -> dict[str, int]:
            await brokers.beat(tx, world.broker)
            return dict(await brokers.counters(tx))

        counters = await world.database.write(unit, ending=True)
        boot = world.clock.boot()
        passed = 0.0 if self._looked_at is None else min(boot - self._looked_at, 2 * BEAT)
        self._looked_at = boot
        for broker in (self._seen.keys() | counters.keys()) - {world.broker}:
            self._look(broker, counters.get(broker), passed)
        for broker, counter in counters.items():
            if self._is_dead(broker):
                await world.database.write(lambda tx, b=broker, c=counter: brokers.bury(tx, b, c), ending=True)  # type: ignore[misc]

    def _look(self, broker: str, counter: int | None, passed: float) -> None:
        seen = self._seen.setdefault(broker, _Seen(counter))
        if counter is None or counter == seen.counter:
            seen.still += passed
        else:
            seen.still = 0.0
        seen.counter = counter
        if counter is None and seen.still > 10 * self.patience:
            del self._seen[broker]  # nobody has asked for it in all that time, or has long been answered

    def _is_dead(self, broker: str) -> bool:
        seen = self._seen.get(broker)
        return seen is not None and seen.still >= self.patience

    async def leave(self, world: World) -> None:
        """This broker stops in order: nothing of it has to be waited for."""
        if not self.exclusive:
            await world.database.write(lambda tx: brokers.leave(tx, world.broker), ending=True)

    async def dead(self, world: World, suspects: Iterable[str]) -> frozenset[str]:
        """Those of `suspects` that are certainly no more."""
        others = frozenset(suspects) - {world.broker}
        if self.exclusive:
            return others
        for broker in others - self._seen.keys():
            self._seen[broker] = _Seen(None)  # of one without a counter it is known when we have looked long enough
        return frozenset(broker for broker in others if self._is_dead(broker))

    def others_until(self, now: datetime) -> datetime:
        """What fell due at other brokers is theirs until it is as old as this."""
        return now if self.exclusive else now - GRACE
