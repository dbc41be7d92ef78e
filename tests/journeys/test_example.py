"""What examples/ shows is run as it stands."""

from __future__ import annotations

import sys

from journeys.orders import orders
from journeys.processes import ROOT, finished


async def test_the_smallest_agent_gets_its_rows_and_leaves_nothing() -> None:
    """It prints what it read as a user of its own; when it has ended the server has no user of ours."""
    async with orders() as stage:
        environment = {"SPIFFE_ENDPOINT_SOCKET": stage.up.workload_api, "SOJOURN_BROKER": stage.up.address}
        done = await finished(
            sys.executable,
            str(ROOT / "examples" / "count_orders.py"),
            folder=stage.up.places.state.parent,
            environment=environment,
        )
        assert (done.code, done.out) == (0, "3\n"), done.err
        assert await stage.users() == set()
