"""What an operator should be woken for, counted every few seconds: overdue endings, targets that don't answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from broker.lifecycle.world import World
from broker.store import endings, quarantine
from ca.runtime.metrics import ENGINES, Metrics

EVERY = 10.0
"""Seconds between two counts."""


@dataclass(slots=True)
class Gauges:
    """The reconciler of what is shown."""

    world: World
    metrics: Metrics

    async def tick(self, now: datetime) -> None:
        """Count; of an engine that has none a zero is shown, so that an alarm ends."""
        overdue = await self.world.database.read(lambda tx: endings.count_overdue(tx, now))
        down = Counter(
            self.world.engines[name].kind for name, calls in self.world.targets.items() if calls.breaker.is_open
        )
        set_aside = await self.world.database.read(quarantine.count)
        for table in ("leases", "tasks", "events", "outbox"):
            self.metrics.set("sojourn_rows_quarantined", set_aside.get(table, 0), table=table)
        for engine in ENGINES:
            count, oldest = overdue.get(engine, (0, None))
            since = 0.0 if oldest is None else oldest.timestamp()
            self.metrics.set("sojourn_leases_overdue", count, engine=engine)
            self.metrics.set("sojourn_leases_overdue_oldest_timestamp_seconds", since, engine=engine)
            self.metrics.set("sojourn_targets_down", down[engine], engine=engine)
