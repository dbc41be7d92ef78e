"""Two targets that are one Redis."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from faults.broker_process import ANNEX, DATABASE
from faults.eyes.redis import RedisEyes
from faults.grounds.targets import two_roles
from servers.redis import Room, Server, redis

_RIGHTS = ("+acl", "+client", "+time", "+ping", "+info", "+multi", "+exec")


@dataclass
class RedisGround:
    """See the module."""

    server: Server
    room: Room
    eyes: RedisEyes

    def facts(self) -> dict[str, Any]:
        """Of a case."""
        room = self.room
        engine = {"kind": "redis", "host": room.host, "port": "@PORT@", "user": room.admin}
        engine |= {"password": "env:SOJOURN_TARGET_PASSWORD"}
        read, write = ({"keys": [room.key], "commands": commands} for commands in (["+@read"], ["+@read", "+set"]))
        target = {"at": [room.host, room.port], "said": {"engine": engine, "roles": two_roles(read, write)}}
        return {
            "targets": {DATABASE: target, ANNEX: target},
            "environment": {"SOJOURN_TARGET_PASSWORD": room.admin_password},
            "room": {"kind": "redis", "host": room.host, "port": room.port},
            "superuser": {"password": self.server.password},
        }

    async def clear(self) -> None:
        """Every principal and the claim; our own password is the settings'."""
        ours = ("sj_", "sojourn_claim_")
        if users := [user for user in self.server.ask("ACL", "USERS") if user.startswith(ours)]:
            self.server.ask("ACL", "DELUSER", *users)
        self.server.ask("ACL", "SETUSER", self.room.admin, "reset", "on", f">{self.room.admin_password}", *_RIGHTS)

    async def restart(self) -> None:
        """The server dies, and forgets whoever was made since its start; our own user is brought back by its owner."""
        self.server.stop(signal.SIGKILL)
        self.server.start()
        self.server.ask("ACL", "SETUSER", self.room.admin, "reset", "on", f">{self.room.admin_password}", *_RIGHTS)
        self.server.ask("SET", self.room.key, "lamp")


@asynccontextmanager
async def redis_ground() -> AsyncIterator[RedisGround]:
    """A server of its own."""
    async with redis(fresh=True) as server, server.room() as room:
        eyes = RedisEyes(server.host, server.port, server.password, room.key, server.folder / "log")
        yield RedisGround(server, room, eyes)
