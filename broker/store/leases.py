"""Leases: moved only along their table, compare-and-swap; found by due time, by task, by target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from broker.model.ids import LeaseId, TaskId
from broker.model.lease import IDENTITY, CloseReason, Handle, Lease, LeaseEvent, LeaseState, after
from broker.model.role import Guarantee
from broker.store.values import mapping_of, moment_of, text_of, time_of
from ca.errors import NotFound, Stale
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction


async def insert(tx: Transaction, lease: Lease) -> None:
    """Write an intent. Its transaction began with `tasks.touch`."""
    await tx.execute(
        "INSERT INTO leases (id, task, role, target, engine, name, facts, guarantee, intended_at, last, broker,"
        " task_version, state, version, generation, until, ack_by, due_at, exclusive, attempts)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0)",
        lease.id,
        lease.task,
        lease.role,
        lease.handle.target,
        lease.handle.engine,
        lease.handle.name,
        text_of(lease.handle.facts),
        text_of(lease.guarantee.to_json()),
        micros(lease.intended_at),
        micros(lease.last),
        lease.broker,
        lease.task_version,
        lease.state,
        lease.version,
        lease.generation,
        micros(lease.until),
        micros(lease.ack_by),
        micros(lease.due_at),
        lease.exclusive,
    )


async def holding(tx: Transaction, exclusive: str) -> Lease | None:
    """The open lease that has what only one may have."""
    row = await tx.fetchrow("SELECT * FROM leases WHERE exclusive = $1 AND closed_at IS NULL", exclusive)
    return None if row is None else lease_of(row)


async def get(tx: Transaction, lease: LeaseId) -> Lease:
    """One lease. Raises NotFound."""
    row = await tx.fetchrow("SELECT * FROM leases WHERE id = $1", lease)
    if row is None:
        raise NotFound("there is no such lease")
    return lease_of(row)


async def move(tx: Transaction, lease: Lease, event: LeaseEvent, **changes: Any) -> Lease:
    """Let `event` happen to `lease` as it was read; `changes` are fields of it. Answers the lease as it stands now.

    Raises:
        NotPossible: the table has no such move.
        Stale: somebody moved it since it was read.
    """
    return await put(tx, lease, replace(lease, state=after(lease.state, event), **changes))


async def keep(tx: Transaction, lease: Lease, **changes: Any) -> Lease:
    """Change fields of `lease` as it was read, within its state. Raises Stale."""
    return await put(tx, lease, replace(lease, **changes))


async def put(tx: Transaction, lease: Lease, changed: Lease) -> Lease:
    """Write what changed about a lease within its state. Raises Stale."""
    changed = replace(changed, version=lease.version + 1)
    count = await tx.execute(
        "UPDATE leases SET task_version = $3, state = $4, version = $5, generation = $6, until = $7, ack_by = $8,"
        " due_at = $9, broker = $10, attempts = $11, acknowledged_at = $12, activated_at = $13, revoking_at = $14,"
        " close_reason = $15, access_ended_at = $16, closed_at = $17, trouble = $18 WHERE id = $1 AND version = $2",
        lease.id,
        lease.version,
        changed.task_version,
        changed.state,
        changed.version,
        changed.generation,
        micros(changed.until),
        micros(changed.ack_by),
        micros(changed.due_at),
        changed.broker,
        changed.attempts,
        time_of(changed.acknowledged_at),
        time_of(changed.activated_at),
        time_of(changed.revoking_at),
        changed.close_reason,
        time_of(changed.access_ended_at),
        time_of(changed.closed_at),
        changed.trouble,
    )
    if count != 1:
        raise Stale("the lease changed meanwhile")
    return changed


async def by_task(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Every lease a task was given, oldest first."""
    return _all(await tx.fetch("SELECT * FROM leases WHERE task = $1 ORDER BY id", task))


async def at_and_below(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Every lease a task and all below it were given, oldest first."""
    return _all(
        await tx.fetch(
            "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
            " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
            " SELECT l.* FROM leases l JOIN line ON line.id = l.task ORDER BY l.id",
            task,
        )
    )


async def open_of(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Those of a task of which something may be left outside."""
    return _all(await tx.fetch("SELECT * FROM leases WHERE task = $1 AND closed_at IS NULL ORDER BY id", task))


async def count(tx: Transaction, task: TaskId) -> int:
    """How many secrets a task and all below it were ever given: a budget counts those, a child spends its parents'.

    The identity of a task is none.
    """
    row = await tx.fetchrow(
        "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
        " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
        " SELECT COUNT(*) AS n FROM leases WHERE task IN (SELECT id FROM line) AND engine <> $2",
        task,
        IDENTITY,
    )
    return 0 if row is None else int(row["n"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whose leases one broker attends to: its own at once, those another touched last when they are as old as that."""

    broker: str
    others_until: datetime


async def due(tx: Transaction, target: str, now: datetime, turn: Turn, limit: int) -> Sequence[Lease]:
    """The leases of one target that something is due for, the most overdue first."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE target = $1 AND closed_at IS NULL AND due_at <= $2"
        " AND (due_at <= $3 OR broker = $4) ORDER BY due_at, id LIMIT $5",
        target,
        micros(now),
        micros(turn.others_until),
        turn.broker,
        limit,
    )
    return _all(rows)


async def hasten(tx: Transaction, now: datetime) -> int:
    """Let every ending that was put off fall due now; how many there were."""
    return await tx.execute(
        "UPDATE leases SET due_at = $1 WHERE closed_at IS NULL AND due_at > $1 AND state IN ('revoking', 'in_doubt')",
        micros(now),
    )


async def of_ended_tasks(tx: Transaction, target: str, turn: Turn, limit: int) -> Sequence[Lease]:
    """Active leases at one target whose task has ended: they have no authority any more, and still a principal."""
    rows = await tx.fetch(
        "SELECT l.* FROM tasks t JOIN leases l ON l.task = t.id WHERE t.ended_at IS NOT NULL AND t.drained_at IS NULL"
        " AND l.closed_at IS NULL AND l.state = 'active' AND l.target = $1 AND (t.ended_at <= $2 OR l.broker = $3)"
        " ORDER BY t.ended_at, l.id LIMIT $4",
        target,
        micros(turn.others_until),
        turn.broker,
        limit,
    )
    return _all(rows)


async def half_made(tx: Transaction, broker: str, limit: int) -> Sequence[Lease]:
    """Intents of every broker process but `broker`."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE state = 'intended' AND broker <> $1 ORDER BY broker, id LIMIT $2", broker, limit
    )
    return _all(rows)


async def active_of_live(tx: Transaction, root: TaskId | None) -> Sequence[LeaseId]:
    """The leases in use of the live tasks of one tree, or of all."""
    rows = await tx.fetch(
        "SELECT l.id FROM tasks t JOIN leases l ON l.task = t.id WHERE t.ended_at IS NULL AND (t.root = $1 OR $2 = 1)"
        " AND l.closed_at IS NULL AND l.state = 'active' ORDER BY t.id, l.id",
        root or "",
        int(root is None),
    )
    return [LeaseId(row["id"]) for row in rows]


async def out_by_role(tx: Transaction, target: str) -> Sequence[tuple[str, int, int]]:
    """Of each role of a target: how many leases are open, of how many tasks."""
    rows = await tx.fetch(
        "SELECT role, COUNT(*) AS n, COUNT(DISTINCT task) AS tasks FROM leases WHERE target = $1 AND closed_at IS NULL"
        " GROUP BY role ORDER BY role",
        target,
    )
    return [(row["role"], int(row["n"]), int(row["tasks"])) for row in rows]


async def active_of_role(tx: Transaction, target: str, role: str, after: LeaseId, limit: int) -> Sequence[LeaseId]:
    """Leases of one role that are in use, in the order of their birth, those after `after`."""
    rows = await tx.fetch(
        "SELECT id FROM leases WHERE target = $1 AND closed_at IS NULL AND role = $2 AND state = 'active' AND id > $3"
        " ORDER BY id LIMIT $4",
        target,
        role,
        after,
        limit,
    )
    return [LeaseId(row["id"]) for row in rows]


async def targets(tx: Transaction) -> Sequence[str]:
    """The targets at which something may be left, also those no longer configured."""
    rows = await tx.fetch("SELECT DISTINCT target FROM leases WHERE closed_at IS NULL ORDER BY target")
    return [row["target"] for row in rows]


async def by_name(tx: Transaction, name: str) -> Lease | None:
    """The lease a principal belongs to, closed or not, at whichever target: no two leases share a name."""
    row = await tx.fetchrow("SELECT * FROM leases WHERE name = $1", name)
    return None if row is None else lease_of(row)


async def open_names(tx: Transaction) -> frozenset[str]:
    """The names an open lease stands for, at whichever target: two targets may be one server (two databases of it)."""
    rows = await tx.fetch("SELECT name FROM leases WHERE closed_at IS NULL ORDER BY name")
    return frozenset(row["name"] for row in rows)


async def active_at(tx: Transaction, target: str) -> Sequence[Lease]:
    """The active leases of one target: each has a principal there, or something is wrong."""
    return _all(await tx.fetch("SELECT * FROM leases WHERE target = $1 AND state = 'active' ORDER BY id", target))


async def page(
    tx: Transaction, *, after: LeaseId | None, limit: int, task: TaskId | None = None, open_only: bool = False
) -> Sequence[Lease]:
    """Leases in the order of their birth, those after `after`; of one task, or only open ones, when asked for."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE id > $1 AND (task = $2 OR $3 = 1) AND (closed_at IS NULL OR $4 = 0)"
        " ORDER BY id LIMIT $5",
        after or "",
        task or "",
        int(task is None),
        int(open_only),
        limit,
    )
    return _all(rows)


def lease_of(row: Row) -> Lease:
    """A row as a value."""
    handle = Handle(target=row["target"], engine=row["engine"], name=row["name"], facts=mapping_of(row["facts"]))
    reason = row["close_reason"]
    return Lease(
        id=LeaseId(row["id"]),
        task=TaskId(row["task"]),
        task_version=row["task_version"],
        role=row["role"],
        handle=handle,
        guarantee=Guarantee.from_json(mapping_of(row["guarantee"])),
        state=LeaseState(row["state"]),
        version=row["version"],
        generation=row["generation"],
        intended_at=instant(row["intended_at"]),
        until=instant(row["until"]),
        last=instant(row["last"]),
        ack_by=instant(row["ack_by"]),
        due_at=instant(row["due_at"]),
        broker=row["broker"],
        attempts=row["attempts"],
        acknowledged_at=moment_of(row["acknowledged_at"]),
        activated_at=moment_of(row["activated_at"]),
        revoking_at=moment_of(row["revoking_at"]),
        close_reason=None if reason is None else CloseReason(reason),
        access_ended_at=moment_of(row["access_ended_at"]),
        closed_at=moment_of(row["closed_at"]),
        trouble=row["trouble"],
    )


def _all(rows: Sequence[Row]) -> list[Lease]:
    return [lease_of(row) for row in rows]
