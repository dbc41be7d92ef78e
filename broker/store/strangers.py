"""Principals with our prefix that no lease knows of: seen, counted, and watched before anything is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ca.runtime.clock import micros
from ca.runtime.database import Transaction


async def see(tx: Transaction, target: str, name: str, now: datetime) -> int:
    """Note a sighting; how many there were."""
    row = await tx.fetchrow(
        "INSERT INTO strangers (target, name, first_seen_at, sightings) VALUES ($1, $2, $3, 1)"
        " ON CONFLICT (target, name) DO UPDATE SET sightings = strangers.sightings + 1 RETURNING sightings",
        target,
        name,
        micros(now),
    )
    return 0 if row is None else int(row["sightings"])


async def forget(tx: Transaction, target: str, name: str) -> None:
    """It is gone, or a lease knows it after all."""
    await tx.execute("DELETE FROM strangers WHERE target = $1 AND name = $2", target, name)


async def all_of(tx: Transaction, target: str) -> Mapping[str, int]:
    """The strangers at one target, with the number of their sightings."""
    rows = await tx.fetch("SELECT name, sightings FROM strangers WHERE target = $1 ORDER BY name", target)
    return {row["name"]: row["sightings"] for row in rows}
