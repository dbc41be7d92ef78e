"""Processes that ended, and nodes that fell silent: their tasks end too.

What the attestor says comes through the `Observer`, which is never asked to wait. `tick` compares the newest word on
every instance that has a live task; a change only makes it run sooner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle import end_task
from broker.lifecycle.world import World
from broker.model.ids import InstanceId
from broker.model.observed import Observation
from broker.model.task import EndReason
from broker.store import tasks


@dataclass(slots=True)
class Processes:
    """The reconciler of instances; an unobserved one is ended after `patience` seconds (traps 3)."""

    world: World
    patience: float = 60.0
    _unobserved: dict[InstanceId, float] = field(default_factory=dict)

    async def tick(self, now: datetime) -> int:
        """End the tasks of instances that ended, or were not seen for too long; answers how many."""
        ended = 0
        instances = await self.world.database.read(tasks.live_instances)
        for gone in self._unobserved.keys() - set(instances):
            del self._unobserved[gone]
        for instance in instances:
            reason = self._reason(instance)
            if reason is not None:
                ended += await self.end(instance, reason, now)
        return ended

    async def end(self, instance: InstanceId, reason: EndReason, now: datetime) -> int:
        """End every task bound to one instance, in one transaction."""
        bound = await self.world.database.read(lambda tx: tasks.by_instance(tx, instance))
        open_yet = [task.id for task in bound if task.id not in self.world.unrecorded]
        said = [end_task.because(self.world, task, reason, now) for task in open_yet]
        return len(await end_task.end_all(self.world, said)) if said else 0

    def _reason(self, instance: InstanceId) -> EndReason | None:
        state = self.world.observer.observed(instance).state
        if state is Observation.ENDED:
            return EndReason.PROCESS_ENDED
        if state is not Observation.UNOBSERVED:
            self._unobserved.pop(instance, None)
            return None
        boot = self.world.clock.boot()
        since = self._unobserved.setdefault(instance, boot)
        return EndReason.NODE_SILENT if boot - since >= self.patience else None
