"""Two targets that are one PostgreSQL, with verifiers of both strengths."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from faults.broker_process import ACCOUNT, ANNEX, DATABASE, SHELF
from faults.eyes.postgres import PostgresEyes
from faults.grounds.targets import two_roles
from faults.yard import address
from servers.postgres import Room, Server, postgres

_OPTIONS = ("log_min_messages=error", "fsync=off")
"""No power is cut here, and what the broker's store does with its disk is another matter."""


@dataclass
class PostgresGround:
    """See the module."""

    server: Server
    room: Room
    eyes: PostgresEyes
    lends: bool = False
    """Whether the second target lends an account of the first; our own password is rotated then."""

    def facts(self) -> dict[str, Any]:
        """Of a case."""
        at, user = self.server, {"user": self.server.superuser, "password": self.server.password}
        lent = {"check_out": {"target": DATABASE, "account": ACCOUNT}}
        role = {"sensitivity": "internal", "ttl": "60s", "engine": lent}
        shelf = {SHELF: {"said": {"engine": {"kind": "static"}, "roles": {ACCOUNT: role}}}}
        beside = shelf if self.lends else {ANNEX: self._target("scram-few")}
        return {
            "targets": {DATABASE: self._target("scram-4096"), **beside},
            "environment": {"SOJOURN_TARGET_PASSWORD": self.room.admin_password},
            "room": {**address(self.room), "kind": "postgres"},
            "superuser": {"host": at.host, "port": at.port, "database": "postgres", **user},
        }

    def _target(self, kind: str) -> dict[str, Any]:
        room = self.room
        engine = {"kind": "postgres", "host": room.host, "port": "@PORT@", "database": room.database}
        engine |= {"user": room.admin, "password": "env:SOJOURN_TARGET_PASSWORD", "clock_limit": "24h"}
        read, write = ({"groups": [group], "secret_kind": kind} for group in room.groups)
        return {"at": [room.host, room.port], "said": {"engine": engine, "roles": two_roles(read, write)}}

    async def clear(self) -> None:
        """Every principal and the claim; the account is there, and our own password is the settings'."""
        connection = await self.server.connect()
        try:
            rows = await connection.fetch("SELECT rolname::text AS n FROM pg_roles WHERE starts_with(rolname, 'sj_')")
            for name in [row["n"] for row in rows] + ["sojourn_claim"]:
                await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
            await connection.execute(f"ALTER ROLE {self.room.admin} PASSWORD '{self.room.admin_password}'")
            await connection.execute(f"DROP ROLE IF EXISTS {ACCOUNT}; CREATE ROLE {ACCOUNT} LOGIN")
            await connection.execute(f"GRANT {ACCOUNT} TO {self.room.admin} WITH ADMIN OPTION")
        finally:
            await connection.close()

    async def restart(self) -> None:
        """The server dies, and is there again."""
        await self.eyes.close()
        self.server.stop(signal.SIGKILL)
        self.server.start()


@asynccontextmanager
async def postgres_ground() -> AsyncIterator[PostgresGround]:
    """A server of its own: roles belong to a server, and two runs may go on side by side."""
    async with postgres(options=_OPTIONS, fresh=True) as server, server.room() as room:
        owner = {"user": server.superuser, "password": server.password, "database": "postgres"}
        eyes = PostgresEyes({"host": server.host, "port": server.port, **owner}, room.database, server.folder / "log")
        try:
            yield PostgresGround(server, room, eyes)
        finally:
            await eyes.close()


@asynccontextmanager
async def static_ground() -> AsyncIterator[PostgresGround]:
    """One target, and one that lends an account of it."""
    async with postgres_ground() as ground:
        yield replace(ground, lends=True)
