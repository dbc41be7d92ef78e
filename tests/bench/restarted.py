"""A broker that starts: `python -m bench.restarted`. For each line that names a store's folder one line of figures."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

from bench.process import heard, say
from bench.timing import now
from broker.store import leases
from fakes.world import living


async def started(folder: Path) -> dict[str, Any]:
    """Enter it, answer, and tick, as a broker does; what it took, from nothing."""
    begun = now()
    async with living(folder) as house, asyncio.TaskGroup() as group:
        ticking = [group.create_task(loop.tick(house.clock.now())) for loop in (house.reaper, house.deadlines)]
        page = await house.world.database.read(lambda tx: leases.page(tx, after=None, limit=100))
        answered = now()
        assert page
        await house.held(await house.open())
        given = now()
        await asyncio.gather(*ticking)
        for _ in range(5):
            await house.reap()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return {"ms": (answered - begun) * 1000, "secret_ms": (given - begun) * 1000, "kib": resident / 1024}


async def main() -> None:
    """Until nobody asks any more."""
    say(["ready"])
    while (folder := await heard()) is not None:
        say(await started(Path(folder)))


if __name__ == "__main__":
    asyncio.run(main())
