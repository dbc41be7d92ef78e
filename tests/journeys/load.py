"""An agent under steady load, in a process of its own: tasks, secrets, logins; through the client and nothing else.

    load.py WORKERS ROLE      until a line comes on stdin; then each worker finishes what it began

Prints a line of JSON for every task that went well, for every error that came as far as here, and one at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from typing import Any

import asyncpg

from attestor.client.source import X509Source
from broker.client.broker import Broker
from broker.client.secret import HeldSecret
from broker.client.task import task


def say(**facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def once(broker: Broker, role: str) -> None:
    """One task: two secrets, a query with each."""
    async with task(purpose="steady load", roles=[role], broker=broker) as work:
        for _ in range(2):
            count = await query(await work.secret(role))
            if count != 3:
                raise RuntimeError(f"read {count} rows")


async def query(held: HeldSecret) -> int:
    """What the secret opens."""
    session = await asyncpg.connect(
        host=str(held.fields["host"]),
        port=int(held.fields["port"]),
        database=str(held.fields["database"]),
        user=str(held.fields["username"]),
        password=held["password"].reveal(),
        timeout=20,
    )
    try:
        count: int = await session.fetchval("SELECT count(*) FROM orders")
        return count
    finally:
        await session.close()


async def work(broker: Broker, role: str, over: asyncio.Event) -> None:
    """For as long as it lasts."""
    while not over.is_set():
        try:
            await once(broker, role)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know
            where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            say(error=type(error).__name__, says=str(error), where=where[-6:])
        else:
            say(done=1)


async def main(workers: int, role: str) -> None:
    """All of them, until stdin says something or ends."""
    over = asyncio.Event()
    async with (
        X509Source.open(os.environ["SPIFFE_ENDPOINT_SOCKET"]) as source,
        Broker.connect(source, os.environ["SOJOURN_BROKER"]) as broker,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(workers):
            group.create_task(work(broker, role, over))
        await asyncio.to_thread(sys.stdin.readline)
        over.set()
    say(over=1)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
