"""The primary dies and its replica is promoted: a server ends rather than go on with what it remembers."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import asyncpg

from ca.runtime.clock import SystemClock
from journeys.processes import short_folder
from journeys.servers import NAMES, Several, free_port, write_settings
from servers.postgres import Server, postgres, standby_of

CLOCK = SystemClock()


async def test_a_server_begins_anew_on_a_promoted_replica() -> None:
    """With the same keys and the same nodes, because everything had arrived there."""
    with short_folder() as folder:
        async with postgres(fresh=True) as primary, AsyncExitStack() as stack:
            address = await primary.store("promoted")
            standby = stack.enter_context(standby_of(primary))
            both = address.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
            found = Several(folder, both, stack, {name: free_port() for name in NAMES})
            write_settings(found)
            server = await found.start("one")
            key = await found.active("one", "root")
            await _arrived(primary, standby)
            primary.stop(signal.SIGKILL)
            await _promote(standby)
            assert await server.ended() == 1
            assert "what was durable may be gone" in server.errors.read_text()
            await found.start("one")
            assert await found.active("one", "root") == key


async def _arrived(primary: Server, standby: Server) -> None:
    """Everything written so far is on the replica."""
    at = await _asked(primary, "SELECT pg_current_wal_flush_lsn()::text")
    async with asyncio.timeout(30):
        while not await _asked(standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'::pg_lsn"):
            await CLOCK.sleep(0.05)


async def _promote(standby: Server) -> None:
    assert await _asked(standby, "SELECT pg_promote()")


async def _asked(server: Server, question: str) -> object:
    connection: asyncpg.Connection = await server.connect()
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
