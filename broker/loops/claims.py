"""Which broker processes are no more.

A store that only one process can hold (SQLite, locked for the process's life) makes this simple: every broker id but
ours belongs to the dead. A shared store needs a claim: each broker raises its counter, and one whose counter stood
still for `patience` seconds *of our own boot time* is taken for dead. No time is written, so no clock is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.lifecycle.world import World
from broker.store import brokers


@dataclass(slots=True)
class Claims:
    """What was seen of other brokers; `exclusive` when the store is held by one process alone."""

    exclusive: bool = True
    patience: float = 30.0
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    async def dead(self, world: World, suspects: Iterable[str]) -> frozenset[str]:
        """Those of `suspects` that are certainly no more."""
        others = frozenset(suspects) - {world.broker}
        if self.exclusive or not others:
            return others
        await world.database.write(lambda tx: brokers.beat(tx, world.broker), ending=True)
        counters = await world.database.read(brokers.counters)
        return frozenset(broker for broker in others if self._stood_still(broker, counters.get(broker), world))

    def _stood_still(self, broker: str, counter: int | None, world: World) -> bool:
        if counter is None:
            return True  # it never raised one, or was buried
        boot = world.clock.boot()
        seen = self._seen.get(broker)
        if seen is None or seen[0] != counter:
            self._seen[broker] = (counter, boot)
            return False
        return boot - seen[1] >= self.patience
