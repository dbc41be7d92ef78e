"""A broker with room for endings only: its disk is full but for the reserve, and grants take every place at its target.

async with living(tmp_path, wrap=Filling) as house:
    only_endings(house)                    whatever gives access is refused from now on
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from ca.runtime.database import Database, StoreFull, Unit
from fakes.world import House


@dataclass
class Filling:
    """A real store on a disk that a test fills: first for grants, then so that not even the reserve is left."""

    inner: Database
    full: bool = False
    reserve: bool = True

    async def read(self, unit: Unit[Any]) -> Any:
        return await self.inner.read(unit)

    async def write(self, unit: Unit[Any], *, ending: bool = False) -> Any:
        if self.full and not (ending and self.reserve):
            raise StoreFull("the store is full")
        return await self.inner.write(unit, ending=ending)


class Taken(asyncio.Semaphore):
    """Places that nobody gets: whoever waits for one instead of its own is a mistake, and is told so."""

    async def acquire(self) -> Literal[True]:
        raise AssertionError("an ending waits for the place of a grant")


def only_endings(house: House) -> None:
    """From now on the store takes what is marked as an ending, and so do targets."""
    store: Any = house.world.database.inner  # type: ignore[attr-defined]
    store.full = True
    for calls in house.world.targets.values():
        calls.grants = Taken(0)
