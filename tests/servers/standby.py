"""A replica that catches up and is promoted."""

from __future__ import annotations

import asyncio

import asyncpg

from ca.runtime.clock import SystemClock
from servers.postgres import Server

CLOCK = SystemClock()


async def arrived(primary: Server, standby: Server) -> None:
    """Everything written so far is on the replica."""
    at = await asked(primary, "SELECT pg_current_wal_flush_lsn()::text")
    async with asyncio.timeout(30):
        while not await asked(standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'::pg_lsn"):
            await CLOCK.sleep(0.05)


async def promote(standby: Server) -> None:
    """It takes writes from now on."""
    assert await asked(standby, "SELECT pg_promote()")


async def asked(server: Server, question: str, database: str = "postgres") -> object:
    """One value."""
    connection: asyncpg.Connection = await server.connect(database)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
