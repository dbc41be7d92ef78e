"""The PostgreSQL of a bench, a broker's world on it, and the raw statements its figures stand beside."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.engines.passwords import new_password
from broker.engines.postgres import open_engine
from broker.engines.postgres.certificate import MARKER
from broker.engines.postgres.scram import ROUNDS, verifier
from broker.engines.postgres.settings import CERTIFICATE
from broker.engines.protocol import Lent
from ca.keys.memory import MemoryKeyStore
from ca.runtime.clock import SystemClock
from fakes.world import House, living, role
from servers.postgres import Room, Server, postgres
from servers.postgres_place import settings_for
from servers.postgres_tls import pki

_QUIET = ("log_statement=none", "log_min_messages=warning", "log_connections=off")


@asynccontextmanager
async def room(*, apart: bool = False, tls: bool = False) -> AsyncIterator[Room]:
    """A database, groups and an admin with no more power than a DBA would give us; fsync is on, no statement logged.

    `apart`: the server has one core for itself, and this process, with the threads it begins meanwhile, the others.
    `tls`: it speaks it, to us and to the bare client alike.
    """
    cores = os.sched_getaffinity(0)
    async with postgres(options=(*_QUIET, *(pki().options() if tls else ())), fresh=True) as server:
        assert server.process is not None
        try:
            if apart:
                os.sched_setaffinity(server.process.pid, {min(cores)})
                os.sched_setaffinity(0, cores - {min(cores)})
            async with server.room() as place:
                await _marker(server, place)
                yield place
        finally:
            os.sched_setaffinity(0, cores)


@asynccontextmanager
async def house(folder: Path, place: Room, kind: str) -> AsyncIterator[House]:
    """A broker's world: real SQLite in `folder`, the real engine on `place`."""
    clock = SystemClock()
    readers = role(
        engine="postgres",
        settings={"groups": [place.groups[0]]},
        ttl=timedelta(minutes=30),
        ack_within=timedelta(minutes=10),
    )
    tls: dict[str, Any] = {"tls": "verify", "tls_ca": pki().trusted} if kind == CERTIFICATE else {}
    async with (
        open_engine(settings_for(place, secret_kind=kind, **tls), Lent(clock=clock, keys=MemoryKeyStore())) as engine,
        living(folder, clock=clock, engine=engine, the_role=readers) as made,
    ):
        yield made


async def _marker(server: Server, place: Room) -> None:
    """The group of those that log in by certificate."""
    owner = await server.connect()
    try:
        await owner.execute(f"CREATE ROLE {MARKER} NOLOGIN; GRANT {MARKER} TO {place.admin} WITH ADMIN OPTION")
    finally:
        await owner.close()


@asynccontextmanager
async def sessions(place: Room, count: int) -> AsyncIterator[Sequence[Any]]:
    """Open connections of the same admin."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            session = await place.connect()
            stack.callback(session.terminate)
            opened.append(session)
        yield opened


def creates(place: Room, kind: str, count: int) -> list[tuple[str, str]]:
    """Names, and the barest statement that makes what we make: the verifier made beforehand, in the same group."""
    made = []
    groups = f"{place.groups[0]}, {MARKER}" if kind == CERTIFICATE else place.groups[0]
    for _ in range(count):
        name = f"raw_{secrets.token_hex(10)}"
        secret = "NULL" if kind == CERTIFICATE else f"'{verifier(new_password(), ROUNDS[kind])}'"
        bounds = f"VALID UNTIL '2099-01-01' CONNECTION LIMIT 10 IN ROLE {groups}"
        made.append((name, f"CREATE ROLE {name} LOGIN INHERIT PASSWORD {secret} {bounds}"))
    return made
