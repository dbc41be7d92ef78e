"""What may be forgotten, and never what is still needed: a batch at a time, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.model.ids import TaskId
from broker.store import events
from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction


async def oldest_left(tx: Transaction, now: datetime) -> datetime:
    """When the oldest task of which something is left was opened: what was recorded of it may still be counted."""
    row = await tx.fetchrow("SELECT MIN(opened_at) AS at FROM tasks WHERE drained_at IS NULL")
    return now if row is None or row["at"] is None else instant(row["at"])


async def oldest_owed(tx: Transaction, now: datetime) -> datetime:
    """Since when another party must still be told something of a task."""
    row = await tx.fetchrow("SELECT MIN(made_at) AS at FROM outbox")
    return now if row is None or row["at"] is None else instant(row["at"])


async def some_events(tx: Transaction, before: datetime, limit: int) -> int:
    """Forget events told before a moment; readers with an older cursor get `resync`. Answers how many."""
    rows = await tx.fetch("SELECT n, at FROM events ORDER BY n LIMIT $1", limit)
    keep = next((row["n"] for row in rows if row["at"] >= micros(before)), None)
    if keep is None and rows:
        keep = rows[-1]["n"] + 1
    return 0 if keep is None else await events.forget_before(tx, keep)


async def trees(tx: Transaction, before: datetime, limit: int) -> Sequence[TaskId]:
    """Roots of trees of which nothing was left before a moment."""
    rows = await tx.fetch(
        "SELECT id FROM tasks WHERE parent IS NULL AND drained_at IS NOT NULL AND drained_at < $1 AND NOT EXISTS"
        " (SELECT 1 FROM tasks t WHERE t.root = tasks.id AND (t.drained_at IS NULL OR t.drained_at >= $1))"
        " ORDER BY drained_at, id LIMIT $2",
        micros(before),
        limit,
    )
    return [TaskId(row["id"]) for row in rows]


async def some_leases(tx: Transaction, root: TaskId, limit: int) -> tuple[int, int]:
    """Forget closed leases of a tree, with the requests they answered; how many of each. None is left when it is 0."""
    rows = await tx.fetch(
        "SELECT l.id FROM tasks t JOIN leases l ON l.task = t.id WHERE t.root = $1 AND l.closed_at IS NOT NULL"
        " ORDER BY l.id LIMIT $2",
        root,
        limit,
    )
    requests = 0
    for row in rows:
        requests += await tx.execute("DELETE FROM requests WHERE lease = $1", row["id"])
        await tx.execute("DELETE FROM leases WHERE id = $1", row["id"])
    return len(rows), requests


async def tree(tx: Transaction, root: TaskId) -> int:
    """Forget the tasks of a tree that has no lease any more; how many there were."""
    return await tx.execute(
        "DELETE FROM tasks WHERE root = $1 AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.root = $1"
        " AND (t.drained_at IS NULL OR EXISTS (SELECT 1 FROM leases l WHERE l.task = t.id)))",
        root,
    )
