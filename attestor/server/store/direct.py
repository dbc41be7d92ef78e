"""Instances that came without a node agent: one for each pod or job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction

_COLUMNS = "subject, instance, renew_by"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectInstance:
    """One."""

    subject: str
    instance: str
    renew_by: datetime


async def of_subject(tx: Transaction, subject: str) -> DirectInstance | None:
    """The newest of a pod or job."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM direct_instances WHERE subject = $1", subject)
    return _read(row) if row else None


async def put(tx: Transaction, one: DirectInstance) -> None:
    """Begin, renew or replace it."""
    await tx.execute(
        f"INSERT INTO direct_instances ({_COLUMNS}) VALUES ($1, $2, $3)"
        " ON CONFLICT (subject) DO UPDATE SET instance = $2, renew_by = $3",
        one.subject,
        one.instance,
        micros(one.renew_by),
    )


async def everything(tx: Transaction) -> Sequence[DirectInstance]:
    """Those that have not been removed."""
    return [_read(row) for row in await tx.fetch(f"SELECT {_COLUMNS} FROM direct_instances ORDER BY subject")]


async def remove(tx: Transaction, one: DirectInstance) -> bool:
    """It has ended; False when it was renewed or replaced meanwhile."""
    changed = await tx.execute(
        "DELETE FROM direct_instances WHERE subject = $1 AND instance = $2 AND renew_by = $3",
        one.subject,
        one.instance,
        micros(one.renew_by),
    )
    return changed == 1


def _read(row: Row) -> DirectInstance:
    return DirectInstance(subject=row["subject"], instance=row["instance"], renew_by=instant(row["renew_by"]))
