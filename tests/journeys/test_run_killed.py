"""`sojourn run` is killed: its command dies with it, its task by its death, and the database lets nobody in."""

from __future__ import annotations

import asyncio
import signal

from ca.runtime.clock import SystemClock
from fakes.caller import has_ended
from journeys.orders import gone, orders
from journeys.processes import PATIENCE, SOJOURN, started

QUERY = "SELECT 'in', pg_sleep(600)"


async def test_run_killed_in_the_middle_of_a_query_leaves_nothing() -> None:
    """No handler runs at SIGKILL; the session is cut and the user is gone all the same."""
    async with asyncio.timeout(PATIENCE), orders() as house:
        home = house.up.places.state.parent
        code = 'echo $$; exec psql --no-psqlrc --quiet --command "' + QUERY + '"'
        command = (SOJOURN, "run", "--role", "orders-db/readonly", "--", "/bin/sh", "-c", code)
        async with started(*command, folder=home, name="run", environment=house.up.environment) as run:
            child = int(await run.line())
            assert len(await house.users()) == 1
            assert await run.end(signal.SIGKILL) == -signal.SIGKILL
            await gone(house.room)
            while not has_ended(child):
                await SystemClock().sleep(0.02)
        async with house.up.operator() as operator:
            (task,) = (await operator.tasks()).items
            report = await operator.report(task.id)
        assert report.ended_at is not None
        assert report.end_reason == "process-ended"
