"""A superuser's eyes on the demo's database: what is told of users and sessions is what the server says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from broker.demo.orders import Orders
from ca.errors import Unavailable
from ca.runtime.clock import Clock

_PATIENCE = 60.0
"""Seconds after which the demo gives up and fails."""

_LOOK = 0.002


@dataclass(frozen=True, slots=True)
class Watcher:
    """One session, held open through the whole story."""

    session: asyncpg.Connection
    clock: Clock

    @classmethod
    @asynccontextmanager
    async def open(cls, orders: Orders, clock: Clock) -> AsyncIterator[Watcher]:
        """Log in as the superuser. Raises Unavailable."""
        session = await orders.server.connect(orders.database)
        try:
            yield cls(session, clock)
        finally:
            await session.close()

    async def version(self) -> str:
        """Which server this is, and that nobody is let in without a password."""
        version = await self.session.fetchval("SHOW server_version")
        trusted = await self.session.fetchval("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'")
        return f"version {version}, {trusted} lines of trust"

    async def role(self, name: str) -> dict[str, Any] | None:
        """The user as the server has it."""
        row = await self.session.fetchrow(
            "SELECT rolcanlogin AS login, rolvaliduntil AS valid_until FROM pg_roles WHERE rolname = $1", name
        )
        return None if row is None else dict(row)

    async def sessions(self, name: str) -> int:
        """How many sessions it has."""
        count: int = await self.session.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", name)
        return count

    async def total(self) -> int:
        """What the agent should have summed up."""
        total: int = await self.session.fetchval("SELECT sum(quantity * cents)::bigint FROM orders")
        return total

    async def principals(self) -> int:
        """How many users anybody of ours left."""
        count: int = await self.session.fetchval(
            r"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sj\_%' AND rolcanlogin"
        )
        return count

    async def until_querying(self, name: str) -> str:
        """Wait until it has a query under way; answers its text.

        Asleep in it: a session that is still preparing would end with its client, and nobody would have cut it.
        """

        async def look() -> str | None:
            query: str | None = await self.session.fetchval(
                "SELECT query FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND wait_event = 'PgSleep'",
                name,
            )
            return query

        return str(await self._until(look, f"`{name}` is at work"))

    async def until_no_session(self, name: str) -> None:
        """Wait until it has no session."""

        async def look() -> bool:
            return await self.sessions(name) == 0

        await self._until(look, f"the sessions of `{name}` are cut")

    async def until_gone(self, name: str) -> None:
        """Wait until there is no such user."""

        async def look() -> bool:
            return await self.role(name) is None

        await self._until(look, f"`{name}` is gone")

    async def _until(self, look: Callable[[], Awaitable[Any]], what: str) -> Any:
        begun = self.clock.boot()
        while self.clock.boot() - begun < _PATIENCE:
            if found := await look():
                return found
            await self.clock.sleep(_LOOK)
        raise Unavailable(f"waited {_PATIENCE:.0f} s in vain until {what}")
