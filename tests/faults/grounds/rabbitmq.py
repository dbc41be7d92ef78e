"""One target that is a RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from faults.broker_process import DATABASE
from faults.eyes.rabbitmq import RabbitmqEyes
from faults.grounds.targets import two_roles
from servers.rabbitmq import Room, Server, rabbitmq


@dataclass
class RabbitmqGround:
    """See the module."""

    server: Server
    room: Room
    eyes: RabbitmqEyes

    def facts(self) -> dict[str, Any]:
        """Of a case; the tap is in the way to the management API."""
        room, server = self.room, self.server
        engine: dict[str, Any] = {"kind": "rabbitmq", "management": f"http://{server.host}:@PORT@", "user": room.admin}
        engine |= {"password": "env:SOJOURN_TARGET_PASSWORD", "host": server.host, "port": server.port}
        rights = {"vhost": room.vhost, "read": "orders"}
        read, write = ({"permissions": [one]} for one in (rights, {**rights, "write": "orders"}))
        said = {"engine": engine, "roles": two_roles(read, write)}
        return {
            "targets": {DATABASE: {"at": [server.host, server.management], "said": said}},
            "environment": {"SOJOURN_TARGET_PASSWORD": room.admin_password},
            "room": {
                "kind": "rabbitmq", "host": server.host, "port": server.port, "vhost": room.vhost,
                "management": server.url,
            },
            "superuser": {"password": server.password},
        }  # fmt: skip

    async def clear(self) -> None:
        """Every principal and the claim; our own password is the settings'."""
        for row in self.server.ask("GET", "users"):
            if row["name"].startswith("sj_"):
                self.server.ask("DELETE", "users", row["name"])
        mine = {"password": self.room.admin_password, "tags": "administrator"}
        self.server.ask("PUT", "users", self.room.admin, body=mine)

    async def restart(self) -> None:
        """Not in a world: that takes eight seconds."""


@asynccontextmanager
async def rabbitmq_ground() -> AsyncIterator[RabbitmqGround]:
    """A server of its own, which takes eight seconds to start."""
    with rabbitmq(fresh=True) as server, server.room() as room:
        (log,) = [path for path in (server.folder / "log").glob("r*.log") if "upgrade" not in path.name]
        yield RabbitmqGround(server, room, RabbitmqEyes(server.url, room.vhost, server.password, log))
