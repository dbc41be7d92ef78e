"""What a test of faults stands in: a warm parent of brokers, a real server of their own, and the oracle's word."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults.broker_process import ACCOUNT
from faults.case import Case
from faults.eyes.postgres import PostgresEyes
from faults.eyes.store import FileStore
from faults.nursery import Nursery, why
from faults.oracle import Outside, look
from faults.stories import AFTERWARDS
from servers.postgres import Room, Server


def address(room: Room) -> dict[str, Any]:
    """What another process must know of a room."""
    facts = {"host": room.host, "port": room.port, "database": room.database, "groups": room.groups}
    return {**facts, "admin": room.admin, "admin_password": room.admin_password}


@dataclass
class Yard:
    """One server and one room; a case after the other."""

    nursery: Nursery
    server: Server
    room: Room
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _log_from: int = 0

    @property
    def owner(self) -> dict[str, Any]:
        """How the server's owner logs in."""
        at, user = self.server, {"user": self.server.superuser, "password": self.server.password}
        return {"host": at.host, "port": at.port, "database": "postgres", **user}

    async def case(self, story: str, points: str = "", **more: Any) -> Case:
        """A case on a store of its own; the server carries nothing of an earlier one."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir(mode=0o700)
        connection = await self.server.connect()
        assert not await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'sj_')")
        await connection.execute(f"DROP ROLE IF EXISTS sojourn_claim, {ACCOUNT}")
        await connection.execute(f"ALTER ROLE {self.room.admin} PASSWORD '{self.room.admin_password}'")
        await connection.close()
        self._log_from = (self.server.folder / "log").stat().st_size
        room = {**address(self.room), **more.pop("room", {})}
        return Case(story=story, points=points, folder=str(folder), room=room, superuser=self.owner, **more)

    def next_life(self, case: Case, story: str, **more: Any) -> Case:
        """The same store and server, after whatever happened."""
        facts = {**asdict(case), "room": address(self.room), "points": "", **more}
        return Case(**{**facts, "story": story})

    async def ask(self, case: Case, *, after_a_minute: bool = False) -> list[str]:
        """What the oracle sees."""
        eyes = PostgresEyes(self.owner, self.room.database, self.server.folder / "log")
        where = Outside(
            store=FileStore(case.store), eyes=eyes, log_from=self._log_from, notes=case.notes, registry=case.registry
        )
        try:
            return await look(where, after_a_minute=after_a_minute)
        finally:
            await eyes.close()

    async def recovers(self, case: Case) -> None:
        """Start again and sweep, once; a minute later; end everything: the oracle is content each time."""
        try:
            for story in AFTERWARDS:
                assert self.nursery.run(self.next_life(case, story)) == 0, why(case)
                assert (story, await self.ask(case, after_a_minute=story != "restart")) == (story, [])
            assert await self.roles() == []
        finally:
            self.nursery.forget()
            await self.clear()

    def logged(self) -> str:
        """What the server has logged since this case began."""
        return self.server.log[self._log_from :]

    async def roles(self) -> list[str]:
        """Every principal of ours."""
        connection = await self.server.connect()
        rows = await connection.fetch("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname::text, 'sj_')")
        await connection.close()
        return [row["rolname"] for row in rows]

    async def clear(self) -> None:
        """One failed case shall fail alone."""
        connection = await self.server.connect()
        for name in await self.roles():
            await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
        await connection.close()
