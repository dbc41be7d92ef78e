"""What became of instances, in the order of commits (traps 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from attestor.instance import State
from ca.runtime.clock import micros
from ca.runtime.database import Transaction

KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChange:
    """One line."""

    n: int
    instance: str
    state: State
    reason: str


async def append(tx: Transaction, instances: Sequence[str], state: State, reason: str, now: datetime) -> None:
    """Note one change for each; the last thing a unit does, because it holds the counter until the commit."""
    if not instances:
        return
    last = await current(tx, advance=len(instances))
    for n, instance in enumerate(instances, start=last - len(instances) + 1):
        await tx.execute(
            "INSERT INTO instance_changes (n, instance, state, reason, at) VALUES ($1, $2, $3, $4, $5)",
            n,
            instance,
            str(state),
            reason,
            micros(now),
        )


async def current(tx: Transaction, *, advance: int = 0) -> int:
    """The newest number, after taking `advance` more."""
    if advance:
        await tx.execute("UPDATE instance_changes_counter SET n = n + $1 WHERE only_row = 1", advance)
    row = await tx.fetchrow("SELECT n FROM instance_changes_counter WHERE only_row = 1")
    assert row is not None, "the migration made it"
    number: int = row["n"]
    return number


async def after(tx: Transaction, cursor: int, limit: int) -> Sequence[StoredChange]:
    """What came after `cursor`, oldest first."""
    rows = await tx.fetch(
        "SELECT n, instance, state, reason FROM instance_changes WHERE n > $1 ORDER BY n LIMIT $2", cursor, limit
    )
    return [
        StoredChange(n=row["n"], instance=row["instance"], state=State(row["state"]), reason=row["reason"])
        for row in rows
    ]


async def prune(tx: Transaction, now: datetime) -> int:
    """Drop what every watcher has long seen."""
    return await tx.execute("DELETE FROM instance_changes WHERE at < $1", micros(now - KEPT))
