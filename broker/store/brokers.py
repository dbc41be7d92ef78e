"""Which broker processes live: each raises a counter; no time is written, so no clock has to be believed."""

from __future__ import annotations

from collections.abc import Mapping

from ca.runtime.database import Transaction


async def beat(tx: Transaction, broker: str) -> None:
    """Say that `broker` lives."""
    await tx.execute(
        "INSERT INTO brokers (broker, counter) VALUES ($1, 1)"
        " ON CONFLICT (broker) DO UPDATE SET counter = brokers.counter + 1",
        broker,
    )


async def counters(tx: Transaction) -> Mapping[str, int]:
    """What each broker's counter shows."""
    rows = await tx.fetch("SELECT broker, counter FROM brokers ORDER BY broker")
    return {row["broker"]: row["counter"] for row in rows}


async def leave(tx: Transaction, broker: str) -> None:
    """Say that `broker` stops, with nothing under way."""
    await tx.execute("DELETE FROM brokers WHERE broker = $1", broker)


async def bury(tx: Transaction, broker: str, counter: int) -> bool:
    """Take a broker for dead if its counter still shows `counter`; whether it was us who did."""
    return await tx.execute("DELETE FROM brokers WHERE broker = $1 AND counter = $2", broker, counter) == 1
