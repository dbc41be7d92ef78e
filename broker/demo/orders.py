"""The orders database of the demo: a small table, a group for each role, and an administrator for the broker."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import asyncpg

from broker.demo.database import Server
from ca.runtime.secret import Secret

DATABASE = "sojourn_demo_orders"
READERS = "sojourn_demo_readers"
WRITERS = "sojourn_demo_writers"
ADMINISTRATOR = "sojourn_demo_broker"

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


async def seed(server: Server) -> Orders:
    """Make the database, its groups and the broker's administrator. Raises Unavailable."""
    password = Secret(secrets.token_urlsafe(24))
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
    return Orders(server=server, database=DATABASE, administrator=ADMINISTRATOR, password=password)


async def remove(server: Server) -> None:
    """Take everything `seed` made away again; for a server that is the user's own."""
    session = await server.connect()
    try:
        await session.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        for role in (ADMINISTRATOR, READERS, WRITERS):
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
