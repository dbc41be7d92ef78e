"""The smallest agent that gets a database password: run it where SPIFFE_ENDPOINT_SOCKET and SOJOURN_BROKER are set.

sojourn up                        # prints both addresses
python examples/count_orders.py
"""

import asyncio
from datetime import timedelta

import asyncpg

from broker.client.task import task


async def main() -> None:
    """Count the orders, in a task of at most ten minutes."""
    async with task(purpose="count the orders", roles=["orders-db/readonly"], lasts=timedelta(minutes=10)) as work:
        secret = await work.secret("orders-db/readonly")
        session = await asyncpg.connect(
            host=str(secret.fields["host"]),
            port=int(secret.fields["port"]),
            database=str(secret.fields["database"]),
            user=str(secret.fields["username"]),
            password=secret["password"].reveal(),
        )
        print(await session.fetchval("SELECT count(*) FROM orders"))
    # Here the task has ended: the login is refused, the session is cut, the user is gone.


asyncio.run(main())
