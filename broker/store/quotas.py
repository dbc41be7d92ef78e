"""What quotas count, inside the transaction that would add to it.

Leases are counted by the indexes of what is open, and no further than to the bound itself. Grants are counted by
minute; each broker writes rows of its own, so that no broker waits for another's.
"""

from __future__ import annotations

from broker.model.ids import TaskId
from broker.model.lease import IDENTITY
from ca.runtime.database import Row, Transaction
from ca.spiffe.id import SpiffeId


async def open_of_task(tx: Transaction, task: TaskId, most: int) -> int:
    """How many leases of a task are open, counted up to `most`."""
    return _n(
        await tx.fetchrow(
            "SELECT COUNT(*) AS n FROM (SELECT id FROM leases WHERE task = $1 AND closed_at IS NULL AND engine <> $2"
            " LIMIT $3) AS held",
            task,
            IDENTITY,
            most,
        )
    )


async def open_of_owner(tx: Transaction, owner: SpiffeId, most: int) -> int:
    """How many leases of all tasks of one SPIFFE ID are open, counted up to `most`."""
    return _n(
        await tx.fetchrow(
            "SELECT COUNT(*) AS n FROM (SELECT l.id FROM tasks t JOIN leases l ON l.task = t.id"
            " WHERE t.owner = $1 AND t.drained_at IS NULL AND l.closed_at IS NULL AND l.engine <> $2 LIMIT $3) AS held",
            str(owner),
            IDENTITY,
            most,
        )
    )


async def open_at(tx: Transaction, target: str, most: int) -> int:
    """How many leases at one target are open, counted up to `most`."""
    return _n(
        await tx.fetchrow(
            "SELECT COUNT(*) AS n FROM"
            " (SELECT id FROM leases WHERE target = $1 AND closed_at IS NULL LIMIT $2) AS held",
            target,
            most,
        )
    )


async def grant(tx: Transaction, owner: SpiffeId, minute: int, broker: str) -> int:
    """Count one grant of a SPIFFE ID in a minute since 1970; answers how many there are by now, of every broker."""
    await tx.execute(
        "INSERT INTO grants (minute, owner, broker, n) VALUES ($1, $2, $3, 1)"
        " ON CONFLICT (minute, owner, broker) DO UPDATE SET n = grants.n + 1",
        minute,
        str(owner),
        broker,
    )
    row = await tx.fetchrow("SELECT SUM(n) AS n FROM grants WHERE minute = $1 AND owner = $2", minute, str(owner))
    return _n(row)


async def forget_before(tx: Transaction, minute: int) -> int:
    """Drop what was counted in earlier minutes."""
    return await tx.execute("DELETE FROM grants WHERE minute < $1", minute)


def _n(row: Row | None) -> int:
    return 0 if row is None else int(row["n"])
