"""A room of a real RabbitMQ as the contract of engines sees it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from broker.engines.protocol import Issued, Lent
from broker.engines.rabbitmq import Settings, open_engine
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from fakes.world import role
from servers.amqp import Guest
from servers.place import new_prefix
from servers.rabbitmq import Room, rabbitmq


@dataclass
class RabbitVisit:
    guest: Guest

    async def answers(self) -> bool:
        return await asyncio.to_thread(self.guest.answers)


@dataclass
class RabbitPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    room: Room
    visits: list[RabbitVisit] = field(default_factory=list)

    async def login(self, issued: Issued) -> RabbitVisit | None:
        name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
        visit = RabbitVisit(self.guest())
        entered = await asyncio.to_thread(
            lambda: visit.guest.authenticate(name, password) and visit.guest.enter(str(issued.fields["vhost"]))
        )
        return visit if entered else None

    def guest(self) -> Guest:
        """Somebody at the door; shown out at the end."""
        self.visits.append(RabbitVisit(Guest(self.room.server.host, self.room.server.port)))
        return self.visits[-1].guest


@asynccontextmanager
async def rabbitmq_place(*, fresh: bool = False, **settings: Any) -> AsyncIterator[RabbitPlace]:
    """A room of a real server; its visitors leave with it."""
    clock = SystemClock()
    with rabbitmq(fresh=fresh) as server, server.room() as room:
        async with open_engine(settings_for(room, **settings), Lent(clock=clock)) as engine:
            rights = {"vhost": room.vhost, "configure": "orders(-[0-9]+)?", "read": "orders"}
            the_role = role(engine="rabbitmq", settings={"permissions": [rights]})
            place = RabbitPlace(engine, the_role, clock, new_prefix(), room)
            try:
                yield place
            finally:
                for visit in place.visits:
                    visit.guest.leave()


def settings_for(room: Room, **more: Any) -> Settings:
    """What an operator would say of this room; its password is in the environment of this process."""
    variable = f"SOJOURN_TEST_{room.admin.upper()}"
    os.environ[variable] = room.admin_password
    facts = {"management": room.server.url, "user": room.admin, "host": room.server.host, "port": room.server.port}
    return Settings.model_validate({**facts, "password": f"env:{variable}", **more})
