"""A broker in a process of its own, to be killed or frozen: opens a task and obtains one secret.

python doomed_broker.py FOLDER ROOM      ROOM is JSON; says `ready`, waits for a line, obtains, says how it went
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path

from broker.engines.postgres import open_engine
from broker.engines.protocol import Lent
from ca.errors import Problem
from ca.runtime import failpoint
from ca.runtime.clock import SystemClock
from fakes.world import living, role
from servers.postgres import Room
from servers.postgres_place import settings_for


async def main(folder: Path, room: Room) -> None:
    """One obtain."""
    clock = SystemClock()
    the_role = role(engine="postgres", settings={"groups": [room.groups[0]]})
    async with (
        open_engine(settings_for(room), Lent(clock=clock)) as engine,
        living(folder, clock=clock, engine=engine, the_role=the_role, deadline=timedelta(seconds=1)) as house,
    ):
        task = await house.open()
        await house.sweep()
        say("ready")
        sys.stdin.readline()
        try:
            await house.obtain(task)
        except Problem as problem:
            say(type(problem).__name__)
        else:
            say("handed over")


def say(text: str) -> None:
    """A line for the test."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    failpoint.arm_from_environment()
    facts = json.loads(sys.argv[2])
    asyncio.run(main(Path(sys.argv[1]), Room(**{**facts, "groups": tuple(facts["groups"])})))
