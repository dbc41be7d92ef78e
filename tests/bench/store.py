"""Durable units by 64 writers at once, on each store, beside the same rows in bare transactions of 64.

A unit is a lease and its receipt: two inserts. Raw is the driver of the store alone, one connection, the same inserts
one after another between BEGIN and COMMIT: no savepoints, no values looked at, nobody told. Both wait for the disk. The
PostgreSQL is a process of this machine and shares its cores with us.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from bench.table import Row, rate_rows, time_rows
from bench.timing import Load, Spread, cpu_seconds, now
from ca.runtime.database import Database, Transaction, Unit, open_database
from servers.postgres import postgres

WRITERS = 64
EACH = 60
_TABLES = (
    "CREATE TABLE lease (id TEXT PRIMARY KEY, task TEXT NOT NULL, at BIGINT NOT NULL)",
    "CREATE TABLE receipt (id TEXT PRIMARY KEY, lease TEXT NOT NULL, body TEXT NOT NULL)",
)
_BODY = "x" * 200


async def measure(folder: Path) -> list[Row]:
    """Both stores."""
    rows: list[Row] = []
    async with open_database(f"sqlite:{folder}/ours.db") as store:
        ours = await _ours(store)
    rows += _rows("SQLite", ours, _raw_sqlite(folder / "raw.db"))
    # no `log_statement`: the tests' own server writes each statement down
    async with postgres(options=("log_statement=none", "log_min_messages=warning"), fresh=True) as server:
        address = await server.store("bench")
        async with open_database(address) as store:
            ours = await _ours(store)
        connection = await server.connect("store_bench")
        rows += _rows("PostgreSQL", ours, await _raw_postgres(connection))
        await connection.close()
    return rows


def _rows(name: str, ours: Load, raw: Load) -> list[Row]:
    limit = f"the same inserts in bare transactions of {WRITERS} units"
    rates = rate_rows("store", f"durable units, {name}, {WRITERS} writers", ours, raw, limit, per_core=True)
    return [*rates, *time_rows("store", f"a durable unit, {name}, {WRITERS} writers", ours.each, raw.each, limit)]


def _unit(name: str) -> Unit[None]:
    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO lease (id, task, at) VALUES ($1, $2, $3)", name, "task", 1)
        await tx.execute("INSERT INTO receipt (id, lease, body) VALUES ($1, $2, $3)", name, name, _BODY)

    return unit


async def _ours(store: Database) -> Load:
    async def make(tx: Transaction) -> None:
        for table in _TABLES:
            await tx.execute(table)

    await store.write(make)
    taken: list[float] = []

    async def writer(number: int) -> None:
        for turn in range(EACH):
            begun = now()
            await store.write(_unit(f"{number}-{turn}"))
            taken.append(now() - begun)

    begun, cpu = now(), cpu_seconds(os.getpid())
    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    return Load(done=WRITERS * EACH, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(taken))


def _names() -> Sequence[Sequence[str]]:
    return [[f"raw-{turn}-{number}" for number in range(WRITERS)] for turn in range(EACH)]


def _raw_sqlite(path: Path) -> Load:
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}").close()
    for table in _TABLES:
        connection.execute(table)
    taken: list[float] = []
    begun, cpu = now(), cpu_seconds(os.getpid())
    for names in _names():
        start = now()
        connection.execute("BEGIN IMMEDIATE")
        for name in names:
            connection.execute("INSERT INTO lease VALUES (?, ?, ?)", (name, "task", 1))
            connection.execute("INSERT INTO receipt VALUES (?, ?, ?)", (name, name, _BODY))
        connection.execute("COMMIT")
        taken += [now() - start] * len(names)
    connection.close()
    return Load(done=WRITERS * EACH, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(taken))


async def _raw_postgres(connection: asyncpg.Connection) -> Load:
    lease = await connection.prepare("INSERT INTO lease VALUES ($1, $2, $3)")
    receipt = await connection.prepare("INSERT INTO receipt VALUES ($1, $2, $3)")
    taken: list[float] = []
    begun, cpu = now(), cpu_seconds(os.getpid())
    for names in _names():
        start = now()
        async with connection.transaction():
            for name in names:
                await lease.fetch(name, "task", 1)
                await receipt.fetch(name, name, _BODY)
        taken += [now() - start] * len(names)
    return Load(done=WRITERS * EACH, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(taken))
