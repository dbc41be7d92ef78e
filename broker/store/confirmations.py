"""The epoch each enforcement point says it has applied: its own claim, shown as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model.event import Epoch
from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One point's word."""

    point: str
    epoch: Epoch
    said_at: datetime


async def confirm(tx: Transaction, point: str, epoch: Epoch, now: datetime) -> None:
    """Keep what `point` said; within one incarnation it never goes back."""
    await tx.execute(
        "INSERT INTO confirmations (point, incarnation, n, said_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (point) DO UPDATE SET incarnation = excluded.incarnation, n = excluded.n,"
        " said_at = excluded.said_at"
        " WHERE confirmations.incarnation <> excluded.incarnation OR confirmations.n <= excluded.n",
        point,
        epoch.incarnation,
        epoch.n,
        micros(now),
    )


async def all_of(tx: Transaction) -> Sequence[Said]:
    """What every point said last, by name."""
    rows = await tx.fetch("SELECT point, incarnation, n, said_at FROM confirmations ORDER BY point")
    return [
        Said(point=row["point"], epoch=Epoch(row["incarnation"], row["n"]), said_at=instant(row["said_at"]))
        for row in rows
    ]
