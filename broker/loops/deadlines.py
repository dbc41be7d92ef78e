"""Tasks whose time is up: past their deadline, or silent for three beats."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle import end_task
from broker.lifecycle.world import World
from broker.model.task import EndReason, Task
from broker.store import tasks

_BATCH = 100
"""Tasks that end in one transaction, each with all that is below it."""


@dataclass(slots=True)
class Deadlines:
    """The reconciler of tasks' time."""

    world: World
    _pardoned: bool = field(default=False)

    async def tick(self, now: datetime) -> int:
        """End what is due, a batch at a time until none is; answers how many.

        While no broker ran nobody could be heard, so the first tick counts silence from now on; deadlines it does not
        move.
        """
        if not self._pardoned:
            await self.world.database.write(lambda tx: tasks.pardon(tx, now), ending=True)
            self._pardoned = True
        ended = 0
        while due := await self.world.database.read(lambda tx: tasks.due(tx, now, _BATCH)):
            said = [
                end_task.because(self.world, task.id, _reason(task, now), now)
                for task in due
                if task.id not in self.world.unrecorded
            ]
            ended += len(await end_task.end_all(self.world, said))
            if all(task.id in self.world.unrecorded for task in due):
                break
        return ended


def _reason(task: Task, now: datetime) -> EndReason:
    return EndReason.DEADLINE if task.is_past_deadline(now) else EndReason.SILENT
