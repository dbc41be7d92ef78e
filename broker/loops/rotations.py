"""Our own passwords at targets: rotated when their time has come, finished when somebody was killed half-way.

With several brokers over one store each logs in with what any of them put in force, as soon as its next tick saw it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.engines.protocol import Engine, OwnAccount, Rotating
from broker.errors import NotPossible
from broker.lifecycle import rotate
from broker.lifecycle.world import World
from broker.store.sealed import Version
from ca.errors import Problem
from ca.runtime import log

_log = log.get(__name__)

EVERY = 5.0
"""Seconds between two looks."""


@dataclass(slots=True)
class Rotations:
    """The reconciler of our own passwords."""

    world: World
    _known: dict[str, Version | None] = field(default_factory=dict)
    _refused: dict[str, Engine] = field(default_factory=dict)
    """Targets that can't be rotated as they are set up; asked again when their settings were read anew."""

    async def tick(self, now: datetime) -> None:
        """One look at each target that can be rotated; one that is down holds up no other's look for long."""
        if self.world.seal is None:
            return
        for target, engine in sorted(self.world.engines.items()):
            if isinstance(engine, Rotating) and isinstance(engine, OwnAccount):
                try:
                    await self._one(target, now)
                except Problem as problem:
                    _log.warning("a rotation is gone on with later", target=target, error=problem)

    async def _due(self, target: str, now: datetime, every: timedelta) -> int | None:
        try:
            return await rotate.rotate(self.world, target, now, every=every)
        except NotPossible:
            self._refused[target] = self.world.engines[target]
            raise

    async def _one(self, target: str, now: datetime) -> None:
        number = await rotate.carry_on(self.world, target, now)
        every = self.world.rotate_every.get(target)
        if number is None and every is not None and self._refused.get(target) is not self.world.engines[target]:
            number = await self._due(target, now, every)
        if number is not None:
            _log.info("the broker's own password was rotated", target=target, times=number)
        newest = await rotate.last(self.world, target)
        if newest != self._known.get(target):
            await rotate.refresh(self.world, target)
            self._known[target] = newest
