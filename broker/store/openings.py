"""Idempotency keys of openings: the same request again, at whichever broker, is the task it opened before."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.errors import KeyReused
from broker.model.caller import Workload
from broker.model.ids import TaskId
from ca.runtime.clock import micros
from ca.runtime.database import Transaction

KEPT = timedelta(days=1)
"""For how long a key means what it became."""


async def claim(tx: Transaction, opener: Workload, key: str, *, digest: str, task: TaskId, now: datetime) -> TaskId:
    """The task that `key` of `opener` became: `task`, when it comes for the first time.

    Two brokers that are asked at once wait for each other here.

    Raises:
        KeyReused: the key came with another body.
    """
    await tx.execute("DELETE FROM openings WHERE made_at < $1", micros(now - KEPT))
    who = f"{opener.id} {opener.instance or ''}"
    first = await tx.execute(
        "INSERT INTO openings (opener, key, digest, task, made_at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (opener, key) DO NOTHING",
        who,
        key,
        digest,
        task,
        micros(now),
    )
    if first:
        return task
    row = await tx.fetchrow("SELECT digest, task FROM openings WHERE opener = $1 AND key = $2", who, key)
    if row is None or row["digest"] != digest:
        raise KeyReused("this idempotency key was used for another request")
    return TaskId(row["task"])
