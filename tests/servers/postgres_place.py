"""A room of a real PostgreSQL as the contract of engines sees it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from broker.engines.postgres import Settings, open_engine
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from fakes.world import role
from servers.place import new_prefix
from servers.postgres import Room, Server, postgres


@dataclass
class PostgresVisit:
    connection: Any

    async def answers(self) -> bool:
        return await reads(self.connection)


@dataclass
class PostgresPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    room: Room
    server: Server
    superuser: bool
    visits: list[PostgresVisit] = field(default_factory=list)

    async def login(self, issued: Issued, **options: Any) -> PostgresVisit | None:
        try:
            name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
            visit = PostgresVisit(await self.room.connect(name, password, **options))
        except (asyncpg.PostgresError, ConnectionError):
            return None
        self.visits.append(visit)
        return visit


async def reads(connection: Any) -> bool:
    """Whether a session still reads rows."""
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM public.orders") == 3)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return False


@asynccontextmanager
async def postgres_place(
    binaries: Path | None = None,
    *,
    superuser: bool = False,
    options: Sequence[str] = (),
    fresh: bool = False,
    **settings: Any,
) -> AsyncIterator[PostgresPlace]:
    """A room of a real server; its visitors leave with it."""
    clock = SystemClock()
    async with (
        postgres(binaries, options=options, fresh=fresh) as server,
        server.room(superuser=superuser) as room,
        open_engine(settings_for(room, **settings), Lent(clock=clock)) as engine,
    ):
        the_role = role(engine="postgres", settings={"groups": [room.groups[0]]})
        place = PostgresPlace(engine, the_role, clock, new_prefix(), room, server, superuser)
        try:
            yield place
        finally:
            for visit in place.visits:
                visit.connection.terminate()
            await clock.sleep(0)


def settings_for(room: Room, **more: Any) -> Settings:
    """What an operator would say of this room; its password is in the environment of this process."""
    variable = f"SOJOURN_TEST_{room.admin.upper()}"
    os.environ[variable] = room.admin_password
    facts = {"host": room.host, "port": room.port, "database": room.database, "user": room.admin}
    return Settings.model_validate({**facts, "password": f"env:{variable}", **more})
