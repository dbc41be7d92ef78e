"""A room of a real MariaDB as the contract of engines sees it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncmy
from asyncmy.errors import MySQLError

from broker.engines.mysql import Settings, open_engine
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from fakes.world import role
from servers.mariadb import Room, Server, mariadb
from servers.place import new_prefix


@dataclass
class MariadbVisit:
    """A session of the driver agents use."""

    connection: Any
    schema: str

    def close(self) -> None:
        """End it."""
        self.connection.close()

    async def answers(self) -> bool:
        """Whether it still reads rows."""
        try:
            async with self.connection.cursor() as cursor:
                await cursor.execute(f"SELECT count(*) FROM `{self.schema}`.orders")
                return bool((await cursor.fetchone())[0] == 3)
        except (MySQLError, OSError, RuntimeError):
            return False


@dataclass
class ForeignVisit:
    """A session of the client `mariadb`, for what the driver can't do."""

    process: subprocess.Popen[bytes]
    schema: str

    async def answers(self) -> bool:
        """Whether it still reads rows."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"SELECT count(*) FROM `{self.schema}`.orders;\n".encode())
            self.process.stdin.flush()
        except OSError:
            return False
        return await asyncio.to_thread(self.process.stdout.readline) == b"3\n"

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@dataclass
class MariadbPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    room: Room
    server: Server
    by_client: bool = False
    visits: list[MariadbVisit | ForeignVisit] = field(default_factory=list)

    async def login(self, issued: Issued) -> MariadbVisit | ForeignVisit | None:
        name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
        return await (self.foreign(name, password) if self.by_client else self.knock(name, password))

    async def foreign(self, name: str, password: str) -> ForeignVisit | None:
        """The same by the foreign client."""
        command = ["mariadb", "--no-defaults", "-N", "-B", "-n", "--skip-reconnect", "-h", self.room.host]
        command += ["-P", str(self.room.port), "-u", name]
        said, pipe = {**os.environ, "MYSQL_PWD": password}, subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=said)
        visit = ForeignVisit(process, self.room.schema)
        self.visits.append(visit)
        return visit if await visit.answers() else None

    async def knock(self, name: str, password: str) -> MariadbVisit | None:
        try:
            connection = await asyncmy.connect(host=self.room.host, port=self.room.port, user=name, password=password)
        except (MySQLError, OSError, RuntimeError):  # for a user it has not the server asks for any of its plugins
            return None
        visit = MariadbVisit(connection, self.room.schema)
        self.visits.append(visit)
        return visit


@asynccontextmanager
async def mariadb_place(
    *,
    options: Sequence[str] = (),
    fresh: bool = False,
    roles: bool = False,
    **settings: Any,
) -> AsyncIterator[MariadbPlace]:
    """A room of a real server; its visitors leave with it. With `roles` rights come by a role of theirs."""
    clock = SystemClock()
    async with (
        mariadb(options=options, fresh=fresh) as server,
        server.room(roles=roles) as room,
        open_engine(settings_for(room, **settings), Lent(clock=clock)) as engine,
    ):
        given = {"role": room.reader} if roles else {"privileges": {room.schema: ["SELECT"]}}
        the_role = role(engine="mysql", settings=given)
        by_client = settings.get("secret_kind") == "ed25519"
        place = MariadbPlace(engine, the_role, clock, new_prefix(), room, server, by_client)
        try:
            yield place
        finally:
            for visit in place.visits:
                visit.close()
            await clock.sleep(0)


def settings_for(room: Room, **more: Any) -> Settings:
    """What an operator would say of this room; its password is in the environment of this process."""
    variable = f"SOJOURN_TEST_{room.admin.upper()}"
    os.environ[variable] = room.admin_password
    facts = {"kind": "mysql", "host": room.host, "port": room.port, "database": room.schema, "user": room.admin}
    return Settings.model_validate({**facts, "password": f"env:{variable}", **more})
