"""The beginnings of chains, cut off after a stated time; a checkpoint stays, so that the rest verifies from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.audit.chain import Head
from ca.errors import Stale
from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A piece taken off a chain: the last entry of it, when that was written, and how many there were."""

    end: Head
    at: datetime
    entries: int


async def all_of(tx: Transaction) -> Mapping[str, Head]:
    """The last forgotten entry of each chain of which some were, by writer."""
    rows = await tx.fetch("SELECT writer, number, hash FROM checkpoints ORDER BY writer")
    return {row["writer"]: Head(writer=row["writer"], number=row["number"], hash=row["hash"]) for row in rows}


async def cut(tx: Transaction, writer: str, before: datetime, limit: int, now: datetime) -> Cut | None:
    """Forget the first entries of one chain, those written before a moment, `limit` of them, and never its last.

    Raises:
        Stale: another broker cut the same chain at the same time.
    """
    rows = await tx.fetch(
        "SELECT number, hash, at FROM receipts WHERE writer = $1"
        " AND number < (SELECT MAX(number) FROM receipts WHERE writer = $1) ORDER BY number LIMIT $2",
        writer,
        limit,
    )
    old = 0
    while old < len(rows) and rows[old]["at"] < micros(before):
        old += 1
    if old == 0:
        return None
    last = rows[old - 1]
    end = Head(writer=writer, number=last["number"], hash=last["hash"])
    gone = await tx.execute("DELETE FROM receipts WHERE writer = $1 AND number <= $2", writer, end.number)
    if gone != old:
        raise Stale("the chain was cut meanwhile")
    await tx.execute(
        "INSERT INTO checkpoints (writer, number, hash, at, cut_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (writer)"
        " DO UPDATE SET number = excluded.number, hash = excluded.hash, at = excluded.at, cut_at = excluded.cut_at",
        writer,
        end.number,
        end.hash,
        last["at"],
        micros(now),
    )
    return Cut(end=end, at=instant(last["at"]), entries=old)
