"""An agent that works for longer than any password lasts: a new one takes the old one's place while it works.

python examples/follow_orders.py
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from broker.client.secret import HeldSecret
from broker.client.task import task


@asynccontextmanager
async def connected(secret: HeldSecret) -> AsyncIterator[asyncpg.Connection]:
    """A session with what the secret is now."""
    session = await asyncpg.connect(secret["url"].reveal())  # one value, so that no two secrets are mixed
    try:
        yield session
    finally:
        await session.close()


async def main(rounds: int = 2) -> None:
    """Count the orders; connect anew each time there is another secret."""
    async with task(purpose="follow the orders", roles=["orders-db/readonly"]) as work:
        secret = await work.secret("orders-db/readonly")
        for _ in range(rounds):
            seen = secret.generation
            async with connected(secret) as session:
                print(await session.fetchval("SELECT count(*) FROM orders"))
                await work.refresh(secret)  # left out, `changed` goes on two minutes before the password's last moment
                await secret.changed(seen)


asyncio.run(main())
