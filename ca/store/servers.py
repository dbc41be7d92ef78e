"""The servers over this store: which change of the authorities each of them has shown to those who follow it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ca.runtime.clock import micros
from ca.runtime.database import Transaction
from ca.store.authorities import StoredAuthority

LIVE = timedelta(seconds=60)
"""A server that has not been heard of for so long is not waited for."""


async def heard(tx: Transaction, server: str, generation: int, now: datetime) -> None:
    """Note that `server` lives at `now` and shows what `generation` says."""
    facts = server, generation, micros(now)
    changed = await tx.execute(
        "UPDATE ca_servers SET told_at = CASE WHEN generation = $2 THEN told_at ELSE $3 END,"
        " generation = $2, seen_at = $3 WHERE server = $1",
        *facts,
    )
    if not changed:
        await tx.execute(
            "INSERT INTO ca_servers (server, generation, told_at, seen_at) VALUES ($1, $2, $3, $3)"
            " ON CONFLICT (server) DO NOTHING",
            *facts,
        )


async def is_live(tx: Transaction, server: str, now: datetime) -> bool:
    """Whether it was heard of lately."""
    row = await tx.fetchrow("SELECT seen_at FROM ca_servers WHERE server = $1", server)
    return row is not None and bool(row["seen_at"] >= micros(now - LIVE))


async def others(tx: Transaction, server: str) -> Sequence[str]:
    """Servers beside this one that have an active authority."""
    rows = await tx.fetch(
        "SELECT DISTINCT server FROM ca_authorities WHERE state = 'active' AND server <> $1 ORDER BY server", server
    )
    return [row["server"] for row in rows]


async def behind(tx: Transaction, authority: StoredAuthority, now: datetime, wait: timedelta) -> Sequence[str]:
    """Servers that sign, may live, and have not shown `authority` for as long as `wait`."""
    rows = await tx.fetch(
        "SELECT DISTINCT a.server FROM ca_authorities a LEFT JOIN ca_servers s ON s.server = a.server"
        " WHERE a.state = 'active' AND a.server <> $1 AND (s.server IS NULL OR s.seen_at >= $2 AND ("
        "s.told_at > $3 OR s.generation < (SELECT published_in FROM ca_authorities WHERE key_id = $4)))"
        " ORDER BY a.server",
        authority.server,
        micros(now - LIVE),
        micros(now - wait),
        authority.key_id.hex(),
    )
    return [row["server"] for row in rows]


async def take_name(tx: Transaction, server: str, run: str) -> None:
    """From now on the process `run` has this server's name, and who had it before has not."""
    await tx.execute(
        "INSERT INTO ca_runs (server, run) VALUES ($1, $2) ON CONFLICT (server) DO UPDATE SET run = $2", server, run
    )


async def who_has(tx: Transaction, server: str) -> str | None:
    """The process that took the name last."""
    row = await tx.fetchrow("SELECT run FROM ca_runs WHERE server = $1", server)
    return None if row is None else str(row["run"])
