"""Run inside the broker's container, as its operators would: waits for a task's end, and says how it ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from broker.client.broker import Broker
from journeys.following import until_ended


async def main(socket: Path, task: str) -> None:
    """State and reason."""
    async with Broker.on_socket(socket) as operator:
        await until_ended(operator, task)
        ended = await operator.task(task)
        sys.stdout.write(f"{ended.state} {ended.end_reason}\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
