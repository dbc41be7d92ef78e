"""What examples/ shows is run as it stands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from journeys.orders import orders
from journeys.processes import started

EXAMPLE = Path(__file__).parents[2] / "examples" / "sum_orders.py"


async def test_the_smallest_agent_gets_its_rows_and_leaves_nothing() -> None:
    """It prints the sum it read with a user of its own; afterwards the server has no user of ours."""
    async with orders() as stage:
        admin = await stage.room.owner()
        await admin.execute(
            "CREATE TABLE orders (quantity int, cents bigint); INSERT INTO orders VALUES (2, 350), (1, 42);"
            f"GRANT SELECT ON orders TO {stage.room.groups[0]}"
        )
        await admin.close()
        environment = {
            "SPIFFE_ENDPOINT_SOCKET": stage.up.workload_api,
            "SOJOURN_BROKER": stage.up.address,
            "PATH": os.environ["PATH"],
        }
        async with started(
            sys.executable, str(EXAMPLE), folder=stage.up.places.state.parent, name="example", environment=environment
        ) as agent:
            await agent.line("742")
            assert await agent.ended() == 0
        report = await stage.up.sojourn("lease", "list", "--open", "--json")
        assert report.code == 0
        assert await stage.users_gone()
