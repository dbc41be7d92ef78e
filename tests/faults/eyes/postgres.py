"""A PostgreSQL as its owner sees it: by SQL of our own over a driver of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

_ROLES = """
SELECT rolname::text AS name, rolcanlogin FROM pg_roles WHERE starts_with(rolname::text, $1) ORDER BY 1"""
_SESSIONS = """
SELECT a.pid, COALESCE(r.rolname::text, '') AS name FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.usesysid IS NOT NULL AND (r.oid IS NULL OR starts_with(r.rolname::text, $1))"""
_CLEAR = re.compile(r"PASSWORD\s+'(?!SCRAM-SHA-256\$)\S{0,12}")


@dataclass
class PostgresEyes:
    """`server`: how its owner logs in; `database`: where agents do; `log`: what it writes."""

    server: dict[str, Any]
    database: str
    log: Path
    _owner: Any = field(default=None, repr=False)

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool]:
        """Every one whose name begins so, and whether it may log in."""
        return {row["name"]: row["rolcanlogin"] for row in await self._fetch(_ROLES, prefix)}

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """A number and the principal of each open one; an empty name where the principal is gone."""
        return [(str(row["pid"]), row["name"]) for row in await self._fetch(_SESSIONS, prefix)]

    async def opens(self, user: str, secret: str) -> bool:
        """Whether somebody gets in with it."""
        address = {"host": self.server["host"], "port": self.server["port"], "database": self.database}
        try:
            session = await asyncpg.connect(**address, user=user, password=secret)
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
            return False
        session.terminate()
        return True

    def clear(self, log: bytes) -> Iterator[str]:
        """What was sent that is no verifier."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Look no more."""
        if self._owner is not None:
            await self._owner.close()
            self._owner = None

    async def _fetch(self, query: str, prefix: str) -> list[Any]:
        if self._owner is None:
            self._owner = await asyncpg.connect(**self.server)
        found: list[Any] = await self._owner.fetch(query, prefix)
        return found
