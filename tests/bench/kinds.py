"""Secrets of other kinds per second: MariaDB and Redis beside their barest statements, static values beside bare rows.

Ours is `lifecycle.obtain` as in `credentials.py`, eight calls at once at a target. Raw at MariaDB is `CREATE USER` with
a verifier made beforehand and one `GRANT`, at Redis one `ACL SETUSER`, on eight connections that are open already.
A static value makes nothing outside: what counts is what is durable, the hand-over and its acknowledgement included,
and raw is three bare rows, each a durable unit of its own, by as many writers.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncmy
from redis.asyncio import Redis

from bench.credentials import MANY, PLACES, obtained, shared_out
from bench.table import Row, rate_rows
from bench.timing import Load
from broker.engines.mysql.principal import scope
from broker.engines.mysql.verifiers import native
from broker.engines.redis.principal import verifier
from ca.runtime.database import Transaction
from ca.runtime.sqlite import open_sqlite
from fakes.world import House, living
from servers.mariadb_place import mariadb_place
from servers.redis_place import redis_place
from servers.static_place import shelf_place

_TURNS, _WARM = 3, 40
_MARIADB, _REDIS, _STATIC = 150, 600, 1500
_READERS = 64


async def measure(folder: Path) -> list[Row]:
    """Each kind, in turns with its raw limit."""
    return [*await _mariadb(folder), *await _redis(folder), *await _static(folder)]


async def _mariadb(folder: Path) -> list[Row]:
    async with mariadb_place() as place, _house(folder / "mariadb", place) as house:
        room = place.room
        facts = {"host": room.host, "port": room.port, "user": room.admin, "password": room.admin_password}
        opened = [await asyncmy.connect(**facts) for _ in range(PLACES)]
        proof = native("raw")

        async def one(worker: int) -> None:
            name = f"raw_{secrets.token_hex(10)}"
            async with opened[worker].cursor() as cursor:
                await cursor.execute(f"CREATE USER '{name}'@'%' IDENTIFIED BY PASSWORD '{proof}'")
                await cursor.execute(f"GRANT SELECT ON {scope(room.schema)} TO '{name}'@'%'")

        ours, raw = await _in_turns(house, one, _MARIADB)
        for connection in opened:
            connection.close()
    return rate_rows(
        "kinds", f"MariaDB users, {MANY} agents", ours, raw, f"`CREATE USER` and `GRANT`, {PLACES} of them"
    )


async def _redis(folder: Path) -> list[Row]:
    async with redis_place() as place, _house(folder / "redis", place) as house:
        room = place.room
        facts: dict[str, Any] = {
            "host": room.host,
            "port": room.port,
            "username": room.admin,
            "password": room.admin_password,
        }
        opened: list[Any] = [Redis(**facts, single_connection_client=True, protocol=2) for _ in range(PLACES)]
        proof = verifier("raw")

        async def one(worker: int) -> None:
            name = f"raw_{secrets.token_hex(10)}"
            rules = ("reset", "on", proof, f"~{room.key}", "+@read")
            await opened[worker].execute_command("ACL", "SETUSER", name, *rules)

        ours, raw = await _in_turns(house, one, _REDIS)
        for client in opened:
            await client.aclose()
    return rate_rows("kinds", f"Redis users, {MANY} agents", ours, raw, f"`ACL SETUSER`, {PLACES} connections")


async def _static(folder: Path) -> list[Row]:
    async with shelf_place() as place, _house(folder / "static", place) as house, _rows(folder / "raw.db") as one:
        tasks = [await house.open() for _ in range(_READERS)]

        async def held(worker: int) -> None:
            await house.held(tasks[worker])

        ours = await shared_out(held, _READERS, _STATIC)
        raw = await shared_out(one, _READERS, _STATIC)
    what, limit = f"static values, durable and acknowledged, {_READERS} agents", "three rows, each durable by itself"
    return rate_rows("kinds", what, ours, raw, limit, per_core=True)


def _house(folder: Path, place: Any) -> AbstractAsyncContextManager[House]:
    """A broker's world on it: real SQLite in `folder`."""
    folder.mkdir()
    role = replace(place.role, ttl=timedelta(minutes=30), ack_within=timedelta(minutes=10))
    return living(folder, clock=place.clock, engine=place.engine, the_role=role)


@asynccontextmanager
async def _rows(path: Path) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Three bare rows by our own store: what an intent, an activation and an acknowledgement can't go below."""
    async with open_sqlite(path) as store:
        await store.write(lambda tx: tx.execute("CREATE TABLE raw (id TEXT PRIMARY KEY, body TEXT NOT NULL)"))

        async def row(tx: Transaction) -> None:
            await tx.execute("INSERT INTO raw (id, body) VALUES ($1, $2)", secrets.token_hex(10), "x" * 200)

        async def one(_: int) -> None:
            for _ in range(3):
                await store.write(row)

        yield one


async def _in_turns(house: House, one: Callable[[int], Awaitable[None]], count: int) -> tuple[Load, Load]:
    tasks = [await house.open() for _ in range(MANY)]
    await obtained(house, tasks, _WARM)
    await shared_out(one, PLACES, _WARM)
    ours, raw = [], []
    for _ in range(_TURNS):
        raw.append(await shared_out(one, PLACES, count))
        ours.append(await obtained(house, tasks, count))
    return sum(ours[1:], ours[0]), sum(raw[1:], raw[0])
