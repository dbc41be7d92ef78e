"""The target `orders-db` of a real PostgreSQL, as a settings file of `up`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ca.runtime.clock import SystemClock
from journeys.processes import PATIENCE
from journeys.up import RunningUp, up
from servers.postgres import Room, postgres

_CLOCK = SystemClock()
TARGET = """\
engine:
  kind: postgres
  host: {room.host}
  port: {room.port}
  database: {room.database}
  user: {room.admin}
  password: env:ORDERS_PASSWORD
roles:
  readonly:
    sensitivity: internal
    engine: {{groups: [{room.groups[0]}]}}
"""


@dataclass(kw_only=True)
class Orders:
    """`up`, and the room of the PostgreSQL it makes users in."""

    up: RunningUp
    room: Room

    async def users(self) -> set[str]:
        """Every principal of ours that is there, seen by the server's own admin."""
        return await users(self.room)


async def users(room: Room) -> set[str]:
    """Every principal of ours that was made for this room."""
    return await room.principals()


async def gone(room: Room) -> None:
    """Return once there is none left."""
    async with asyncio.timeout(PATIENCE):
        while await users(room):
            await _CLOCK.sleep(0.02)


@asynccontextmanager
async def orders(rules: str | None = None) -> AsyncIterator[Orders]:
    """Both run."""
    async with postgres() as server, server.room() as room:
        secret = {"ORDERS_PASSWORD": room.admin_password}
        async with up(rules=rules, targets={"orders-db": TARGET.format(room=room)}, environment=secret) as running:
            yield Orders(up=running, room=room)
