"""Two targets that are one MariaDB."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from faults.broker_process import ANNEX, DATABASE
from faults.eyes.mysql import MysqlEyes
from faults.grounds.targets import two_roles
from servers.mariadb import Room, Server, mariadb

_OPTIONS = ("--innodb-flush-log-at-trx-commit=2", "--aria-group-commit=none")


@dataclass
class MysqlGround:
    """See the module."""

    server: Server
    room: Room
    eyes: MysqlEyes

    def facts(self) -> dict[str, Any]:
        """Of a case."""
        room = self.room
        engine = {"kind": "mysql", "host": room.host, "port": "@PORT@", "database": room.schema, "user": room.admin}
        engine |= {"password": "env:SOJOURN_TARGET_PASSWORD", "clock_limit": "24h"}
        read, write = ({"privileges": {room.schema: rights}} for rights in (["SELECT"], ["SELECT", "INSERT"]))
        target = {"at": [room.host, room.port], "said": {"engine": engine, "roles": two_roles(read, write)}}
        return {
            "targets": {DATABASE: target, ANNEX: target},
            "environment": {"SOJOURN_TARGET_PASSWORD": room.admin_password},
            "room": {"kind": "mysql", "host": room.host, "port": room.port, "database": room.schema},
            "superuser": {"password": self.server.password},
        }

    async def clear(self) -> None:
        """Every principal and the claim; our own password is the settings'."""
        for user in [*self.server.principals(), "sojourn_claim"]:
            self.server.ask(f"DROP USER IF EXISTS '{user}'")
        self.server.ask(f"ALTER USER {self.room.admin} IDENTIFIED BY '{self.room.admin_password}'")

    async def restart(self) -> None:
        """The server dies, and is there again."""
        self.server.stop(signal.SIGKILL)
        self.server.start()


@asynccontextmanager
async def mysql_ground() -> AsyncIterator[MysqlGround]:
    """A server of its own."""
    async with mariadb(options=_OPTIONS, fresh=True) as server, server.room() as room:
        eyes = MysqlEyes(server.host, server.port, server.password, server.folder / "data" / "statements")
        yield MysqlGround(server, room, eyes)
