"""The PostgreSQL of a bench, a broker's world on it, and the raw statements its figures stand beside."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.engines.postgres import open_engine
from broker.engines.postgres.scram import ROUNDS, new_password, verifier
from ca.runtime.clock import SystemClock
from fakes.world import House, living, role
from servers.places import settings_for
from servers.postgres import Room, postgres

_QUIET = ("log_statement=none", "log_min_messages=warning", "log_connections=off")


@asynccontextmanager
async def room() -> AsyncIterator[Room]:
    """A database, groups and an admin with no more power than a DBA would give us; fsync is on, no statement logged."""
    async with postgres(options=_QUIET, fresh=True) as server, server.room() as place:
        yield place


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
    async with (
        open_engine(settings_for(place, secret_kind=kind), clock) as engine,
        living(folder, clock=clock, engine=engine, the_role=readers) as made,
    ):
        yield made


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
    names = [f"raw_{secrets.token_hex(10)}" for _ in range(count)]
    until = "VALID UNTIL '2099-01-01' CONNECTION LIMIT 10"
    return [
        (
            name,
            f"CREATE ROLE {name} LOGIN INHERIT PASSWORD '{verifier(new_password(), ROUNDS[kind])}' {until}"
            f" IN ROLE {place.groups[0]}",
        )
        for name in names
    ]
