"""Idempotency keys: what each became. A row holds a lease, never an answer (traps 13)."""

from __future__ import annotations

from datetime import datetime

from broker.errors import KeyReused
from broker.model.ids import LeaseId, TaskId
from ca.runtime.clock import micros
from ca.runtime.database import Transaction


async def find(tx: Transaction, task: TaskId, key: str, digest: str) -> LeaseId | None:
    """The lease a key became. Raises KeyReused: the key came with another body."""
    row = await tx.fetchrow("SELECT digest, lease FROM requests WHERE task = $1 AND key = $2", task, key)
    if row is None:
        return None
    if row["digest"] != digest:
        raise KeyReused("this idempotency key was used for another request")
    return LeaseId(row["lease"])


async def remember(tx: Transaction, task: TaskId, key: str, *, digest: str, lease: LeaseId, now: datetime) -> None:
    """Note, in the transaction of the intent, what a key became; a key whose lease came to nothing is pointed anew."""
    await tx.execute(
        "INSERT INTO requests (task, key, digest, lease, made_at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (task, key) DO UPDATE SET lease = excluded.lease, made_at = excluded.made_at",
        task,
        key,
        digest,
        lease,
        micros(now),
    )
