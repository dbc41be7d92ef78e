"""Where lives of chance are played: one kind of target, made ready for worlds that come and go, and eyes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from faults.broker_process import ANNEX, DATABASE
from faults.eyes.postgres import PostgresEyes
from faults.oracle import Eyes
from faults.yard import address
from servers.postgres import Room, Server, postgres


class Ground(Protocol):
    """What a driver of lives needs of one kind of target."""

    @property
    def eyes(self) -> Eyes:
        """The oracle's."""

    def facts(self) -> dict[str, Any]:
        """Of a `Case`: targets, environment, room, superuser."""

    async def clear(self) -> None:
        """Nothing of an earlier world is left, the claim neither."""


@dataclass
class PostgresGround:
    """Two targets that are one server."""

    server: Server
    room: Room
    eyes: PostgresEyes

    def facts(self) -> dict[str, Any]:
        at, user = self.server, {"user": self.server.superuser, "password": self.server.password}
        return {
            "targets": {DATABASE: self._target("scram-4096"), ANNEX: self._target("scram-few")},
            "environment": {"SOJOURN_TARGET_PASSWORD": self.room.admin_password},
            "room": address(self.room),
            "superuser": {"host": at.host, "port": at.port, "database": "postgres", **user},
        }

    def _target(self, kind: str) -> dict[str, Any]:
        room = self.room
        engine = {"kind": "postgres", "host": room.host, "port": "@PORT@", "database": room.database}
        engine |= {"user": room.admin, "password": "env:SOJOURN_TARGET_PASSWORD", "clock_limit": "24h"}
        read, write = ({"groups": [group], "secret_kind": kind} for group in room.groups)
        roles = {
            "readonly": {"sensitivity": "internal", "ttl": "60s", "engine": read},
            "readwrite": {"sensitivity": "confidential", "ttl": "60s", "engine": write},
        }
        return {"at": [room.host, room.port], "said": {"engine": engine, "roles": roles}}

    async def clear(self) -> None:
        connection = await self.server.connect()
        try:
            rows = await connection.fetch("SELECT rolname::text AS n FROM pg_roles WHERE starts_with(rolname, 'sj_')")
            for name in [row["n"] for row in rows] + ["sojourn_claim"]:
                await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
        finally:
            await connection.close()


_OPTIONS = ("log_min_messages=error", "fsync=off")
"""No power is cut here, and what the broker's store does with its disk is another matter."""


@asynccontextmanager
async def postgres_ground() -> AsyncIterator[Ground]:
    """A server of its own: roles belong to a server, and two runs may go on side by side."""
    async with postgres(options=_OPTIONS, fresh=True) as server, server.room() as room:
        owner = {"user": server.superuser, "password": server.password, "database": "postgres"}
        eyes = PostgresEyes({"host": server.host, "port": server.port, **owner}, room.database, server.folder / "log")
        try:
            yield PostgresGround(server, room, eyes)
        finally:
            await eyes.close()


GROUNDS: dict[str, Callable[[], AbstractAsyncContextManager[Ground]]] = {"postgres": postgres_ground}
"""By the engine's kind."""
