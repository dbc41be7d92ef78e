"""Identities of tasks: whose each is, until when, and when its broker last said that the task lives.

Whoever signs for one touches its row in the unit that records the signature, and whoever ends one changes the row
before looking for what was signed: so nothing is signed after an end, and what was signed before it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.spiffe.id import SpiffeId
from ca.store import leaves_of, revoke

KEPT = timedelta(days=1)
"""How long one that is over is remembered: a grant that was under way has long been refused."""

_AT_ONCE = 500
_COLUMNS = "name, state, reason, task, instance, node, ends_at, confirmed_at, changed_at"


class Standing(StrEnum):
    """What became of one."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """One row; `task`, `instance` and `node` are empty for a name that was only ever withdrawn."""

    name: str
    state: Standing
    reason: str
    task: str
    instance: str
    node: str
    ends_at: datetime
    confirmed_at: datetime
    changed_at: datetime


async def get(tx: Transaction, name: str) -> TaskIdentity | None:
    """The one of that name."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM task_identities WHERE name = $1", name)
    return _read(row) if row else None


async def insert(tx: Transaction, one: TaskIdentity) -> bool:
    """Add one; False when its name is taken, or its task has an identity in force."""
    added = await tx.execute(
        f"INSERT INTO task_identities ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        one.name,
        str(one.state),
        one.reason,
        one.task or None,
        one.instance or None,
        one.node or None,
        micros(one.ends_at),
        micros(one.confirmed_at),
        micros(one.changed_at),
    )
    return added == 1


async def holders(tx: Transaction, task: str) -> frozenset[str]:
    """The instances that ever had the identity of a task."""
    rows = await tx.fetch(
        "SELECT DISTINCT instance FROM task_identities WHERE task = $1 AND instance IS NOT NULL ORDER BY instance", task
    )
    return frozenset(row["instance"] for row in rows)


async def of_instance(tx: Transaction, instance: str) -> Sequence[TaskIdentity]:
    """Those in force of an instance, in the order in which their tasks began."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM task_identities WHERE instance = $1 AND state = 'granted' ORDER BY task", instance
    )
    return [_read(row) for row in rows]


async def of_instances(tx: Transaction, instances: Sequence[str]) -> Mapping[str, Sequence[TaskIdentity]]:
    """The same for several, by instance; who has none is left out."""
    found: dict[str, list[TaskIdentity]] = {}
    for first in range(0, len(instances), _AT_ONCE):
        piece = instances[first : first + _AT_ONCE]
        places = ", ".join(f"${n}" for n in range(1, len(piece) + 1))
        rows = await tx.fetch(
            f"SELECT {_COLUMNS} FROM task_identities WHERE state = 'granted' AND instance IN ({places}) ORDER BY task",
            *piece,
        )
        for one in map(_read, rows):
            found.setdefault(one.instance, []).append(one)
    return found


async def names_on(tx: Transaction, node: str) -> Mapping[str, Sequence[str]]:
    """The names of those in force on a node, by instance."""
    rows = await tx.fetch(
        "SELECT instance, name FROM task_identities WHERE node = $1 AND state = 'granted' ORDER BY instance, name", node
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["instance"], []).append(row["name"])
    return found


async def hold(tx: Transaction, name: str) -> bool:
    """Keep one from ending before this unit does; False when it is not in force."""
    return (await tx.execute("UPDATE task_identities SET name = name WHERE name = $1 AND state = 'granted'", name)) == 1


async def confirm(tx: Transaction, name: str, now: datetime) -> Standing | None:
    """Its broker says that the task lives; what it stands as, None for one that is not known."""
    await tx.execute(
        "UPDATE task_identities SET confirmed_at = $2 WHERE name = $1 AND state = 'granted'", name, micros(now)
    )
    found = await get(tx, name)
    return found.state if found else None


async def finish(tx: Transaction, one: TaskIdentity, spiffe_id: SpiffeId, reason: str, now: datetime) -> int:
    """End one that may be in force, and take back every leaf of it; how many leaves were valid until now."""
    await tx.execute(
        "UPDATE task_identities SET state = 'withdrawn', reason = $2, changed_at = $3"
        " WHERE name = $1 AND state = 'granted'",
        one.name,
        reason,
        micros(now),
    )
    await tx.execute(
        "DELETE FROM instance_identities WHERE instance = $1 AND spiffe_id = $2", one.instance, str(spiffe_id)
    )
    leaves = [leaf for leaf in await leaves_of(tx, [one.instance], now) if leaf.spiffe_id == str(spiffe_id)]
    return await revoke(tx, leaves, reason, now)


async def finish_of(tx: Transaction, instances: Sequence[str], reason: str, now: datetime) -> int:
    """End those of instances that have ended; their leaves are the instances' and go with them."""
    ended = 0
    for first in range(0, len(instances), _AT_ONCE):
        piece = instances[first : first + _AT_ONCE]
        places = ", ".join(f"${n}" for n in range(3, len(piece) + 3))
        ended += await tx.execute(
            "UPDATE task_identities SET state = 'withdrawn', reason = $1, changed_at = $2"
            f" WHERE state = 'granted' AND instance IN ({places})",
            reason,
            micros(now),
            *piece,
        )
    return ended


async def close(tx: Transaction, name: str, now: datetime) -> None:
    """Nothing is left of it; the name stays taken for a while."""
    await tx.execute(
        "UPDATE task_identities SET state = 'closed', changed_at = $2 WHERE name = $1 AND state = 'withdrawn'",
        name,
        micros(now),
    )


async def over(tx: Transaction, now: datetime, limit: int) -> Sequence[TaskIdentity]:
    """Those in force whose end has come."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM task_identities WHERE state = 'granted' AND ends_at <= $1 ORDER BY ends_at LIMIT $2",
        micros(now),
        limit,
    )
    return [_read(row) for row in rows]


async def page(tx: Transaction, prefix: str, after: str, limit: int) -> Sequence[str]:
    """Names that begin with `prefix` and come after `after`, in their order; those that are closed are left out."""
    rows = await tx.fetch(
        "SELECT name FROM task_identities WHERE name > $1 AND substr(name, 1, $2) = $3 AND state <> 'closed'"
        " ORDER BY name LIMIT $4",
        after,
        len(prefix),
        prefix,
        limit,
    )
    return [row["name"] for row in rows]


async def prune(tx: Transaction, now: datetime) -> int:
    """Forget those that are long over."""
    return await tx.execute(
        "DELETE FROM task_identities WHERE state <> 'granted' AND changed_at < $1", micros(now - KEPT)
    )


def _read(row: Row) -> TaskIdentity:
    return TaskIdentity(
        name=row["name"],
        state=Standing(row["state"]),
        reason=row["reason"],
        task=row["task"] or "",
        instance=row["instance"] or "",
        node=row["node"] or "",
        ends_at=instant(row["ends_at"]),
        confirmed_at=instant(row["confirmed_at"]),
        changed_at=instant(row["changed_at"]),
    )
