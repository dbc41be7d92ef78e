"""The orders database of the demo: a small table, a group for each role, and an administrator for the broker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg

from broker.demo.database import Server
from ca.errors import Conflict, Unavailable
from ca.runtime.secret import Secret

DATABASE = "sojourn_demo_orders"
READERS = "sojourn_demo_readers"
WRITERS = "sojourn_demo_writers"
ADMINISTRATOR = "sojourn_demo_broker"
CLAIM = "sojourn_claim"
"""By which a broker says that a server is its own (traps 19): the demo's goes with it, another's is respected."""

ORDERS = (
    ("Ada", "brass gears", 12, 4_80),
    ("Grace", "moth traps", 3, 19_00),
    ("Edsger", "shortest path, framed", 1, 149_00),
    ("Barbara", "abstract furniture", 4, 88_50),
    ("Alan", "paper tape, endless", 7, 6_25),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Where the table is, and how the broker (not the agent) gets in."""

    server: Server
    database: str
    administrator: str
    password: Secret


@asynccontextmanager
async def seeded(server: Server) -> AsyncIterator[Orders]:
    """Make the database, its groups and the broker's administrator; take them away again when left.

    Raises:
        Conflict: something of one of these names is there; it may be somebody's.
        Unavailable: the server can't be reached, or refuses.
    """
    password = Secret(secrets.token_urlsafe(24))
    await _refuse_what_is_there(server)
    try:
        with _said_by(server):
            await _make(server, password)
        yield Orders(server=server, database=DATABASE, administrator=ADMINISTRATOR, password=password)
    finally:
        with _said_by(server):
            await _remove(server)


@contextmanager
def _said_by(server: Server) -> Iterator[None]:
    """What the server refuses, as a sentence."""
    try:
        yield
    except asyncpg.PostgresError as error:
        where = f"{server.host}:{server.port}"
        raise Unavailable(f"PostgreSQL at {where} refused what the demo needs: {error}") from error


async def _refuse_what_is_there(server: Server) -> None:
    session = await server.connect()
    try:
        row = await session.fetchrow(
            "SELECT datname::text AS name FROM pg_database WHERE datname = $1"
            " UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname = ANY($2::text[])",
            DATABASE,
            [READERS, WRITERS, ADMINISTRATOR, CLAIM],
        )
    finally:
        await session.close()
    if row is not None:
        raise Conflict(f"`{row['name']}` is in that PostgreSQL already: name another with --database, or drop it there")


async def _make(server: Server, password: Secret) -> None:
    maintenance = await server.connect()
    try:
        await _roles(maintenance, password)
        await maintenance.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await maintenance.close()
    orders = await server.connect(DATABASE)
    try:
        await _table(orders)
    finally:
        await orders.close()


async def _remove(server: Server) -> None:
    session = await server.connect()
    try:
        await session.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        for role in (CLAIM, ADMINISTRATOR, READERS, WRITERS):
            await session.execute(f"DROP ROLE IF EXISTS {role}")
    finally:
        await session.close()


async def _roles(session: asyncpg.Connection, password: Secret) -> None:
    quoted = await session.fetchval("SELECT quote_literal($1)", password.reveal())
    await session.execute(f"CREATE ROLE {ADMINISTRATOR} LOGIN CREATEROLE PASSWORD {quoted}")
    await session.execute(f"GRANT pg_signal_backend TO {ADMINISTRATOR}")
    for group in (READERS, WRITERS):
        await session.execute(f"CREATE ROLE {group} NOLOGIN")
        await session.execute(f"GRANT {group} TO {ADMINISTRATOR} WITH ADMIN OPTION")


async def _table(session: asyncpg.Connection) -> None:
    await session.execute(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL,"
        " item text NOT NULL, quantity int NOT NULL, cents bigint NOT NULL)"
    )
    await session.executemany("INSERT INTO orders (customer, item, quantity, cents) VALUES ($1, $2, $3, $4)", ORDERS)
    await session.execute(f"GRANT SELECT ON orders TO {READERS}; GRANT SELECT, INSERT, UPDATE ON orders TO {WRITERS}")
