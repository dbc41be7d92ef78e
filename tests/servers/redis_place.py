"""A room of a real Redis as the contract of engines sees it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from broker.engines.protocol import Issued, Lent
from broker.engines.redis import Settings, open_engine
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from fakes.world import role
from servers.place import new_prefix
from servers.redis import Room, Server, redis


@dataclass
class RedisVisit:
    """A session of the driver agents use: one connection that never comes back by itself."""

    client: Client
    key: str

    async def answers(self) -> bool:
        """Whether it still reads."""
        try:
            return await self.client.get(self.key) == "lamp"
        except (RedisError, OSError):
            return False


@dataclass
class RedisPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    room: Room
    server: Server
    settings: Settings
    others: list[Server] = field(default_factory=list)
    visits: list[RedisVisit] = field(default_factory=list)

    async def login(self, issued: Issued) -> RedisVisit | None:
        return await self.knock(str(issued.fields["username"]), issued.secret["password"].reveal())

    async def knock(self, name: str, password: str, port: int | None = None) -> RedisVisit | None:
        """A session at the room, or at whoever listens on `port`."""
        client = Client(
            host=self.room.host,
            port=port or self.room.port,
            username=name,
            password=password,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
            protocol=2,
        )
        visit = RedisVisit(client, self.room.key)
        self.visits.append(visit)
        return visit if await visit.answers() else None


@asynccontextmanager
async def redis_place(
    *, aclfile: bool = False, fresh: bool = False, nodes: int = 0, **settings: Any
) -> AsyncIterator[RedisPlace]:
    """A room of a real server, or of several that share nothing; its visitors leave with it."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis(aclfile=aclfile, fresh=fresh))
        others = [await stack.enter_async_context(redis(aclfile=aclfile, fresh=True)) for _ in range(nodes)]
        room = await stack.enter_async_context(server.room())
        for other in others:
            other.ask("SET", room.key, "lamp")
            said = [f">{room.admin_password}", "+acl", "+client", "+time", "+ping", "+info", "+multi", "+exec"]
            other.ask("ACL", "SETUSER", room.admin, "reset", "on", *said)
        also = [{"host": other.host, "port": other.port} for other in others]
        said_of = settings_for(room, nodes=tuple(also), persist="aclfile" if aclfile else "none", **settings)
        engine = await stack.enter_async_context(open_engine(said_of, Lent(clock=clock)))
        the_role = role(engine="redis", settings={"keys": [room.key], "commands": ["+@read"]})
        place = RedisPlace(engine, the_role, clock, new_prefix(), room, server, said_of, others)
        try:
            yield place
        finally:
            for visit in place.visits:
                await visit.client.aclose()


def settings_for(room: Room, **more: Any) -> Settings:
    """What an operator would say of this room; its password is in the environment of this process."""
    variable = f"SOJOURN_TEST_{room.admin.upper()}"
    os.environ[variable] = room.admin_password
    facts = {"kind": "redis", "host": room.host, "port": room.port, "user": room.admin}
    return Settings.model_validate({**facts, "password": f"env:{variable}", **more})
