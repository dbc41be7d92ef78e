"""Leases: moved only along their table, compare-and-swap; found by id, by task, by name. By what is due: `endings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, LiteralString

from broker.model.ids import LeaseId, TaskId
from broker.model.lease import IDENTITY, CloseReason, Handle, Lease, LeaseEvent, LeaseState, after
from broker.model.role import Guarantee
from broker.store.quarantine import read
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
    return None if row is None else read("leases", row["id"], row, lease_of)


async def get(tx: Transaction, lease: LeaseId) -> Lease:
    """One lease. Raises NotFound."""
    row = await tx.fetchrow("SELECT * FROM leases WHERE id = $1", lease)
    if row is None:
        raise NotFound("there is no such lease")
    return read("leases", lease, row, lease_of)


async def move(tx: Transaction, lease: Lease, event: LeaseEvent, **changes: Any) -> Lease:
    """Let `event` happen to `lease` as it was read; `changes` are fields of it. Answers the lease as it stands now.

    Raises:
        NotPossible: the table has no such move.
        Stale: somebody moved it since it was read.
    """
    return await _put(tx, lease, state=after(lease.state, event), **changes)


async def keep(tx: Transaction, lease: Lease, **changes: Any) -> Lease:
    """Change fields of `lease` as it was read, within its state. Raises Stale."""
    return await _put(tx, lease, **changes)


async def _put(tx: Transaction, lease: Lease, **changes: Any) -> Lease:
    changed = replace(lease, version=lease.version + 1, **changes)
    count = await tx.execute(
        "UPDATE leases SET task_version = $3, state = $4, version = $5, generation = $6, until = $7, ack_by = $8,"
        " due_at = $9, broker = $10, attempts = $11, acknowledged_at = $12, activated_at = $13, revoking_at = $14,"
        " close_reason = $15, access_ended_at = $16, closed_at = $17, trouble = $18, end_due_at = $19"
        " WHERE id = $1 AND version = $2",
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
        time_of(changed.end_due_at),
    )
    if count != 1:
        raise Stale("the lease changed meanwhile")
    return changed


async def by_task(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Every lease a task was given, oldest first."""
    return all_of(await tx.fetch("SELECT * FROM leases WHERE task = $1 AND set_aside IS NULL ORDER BY id", task))


async def at_and_below(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Every lease a task and all below it were given, oldest first."""
    return all_of(
        await tx.fetch(
            "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
            " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
            " SELECT l.* FROM leases l JOIN line ON line.id = l.task WHERE l.set_aside IS NULL ORDER BY l.id",
            task,
        )
    )


async def open_of(tx: Transaction, task: TaskId) -> Sequence[Lease]:
    """Those of a task of which something may be left outside."""
    return all_of(
        await tx.fetch(
            "SELECT * FROM leases WHERE task = $1 AND closed_at IS NULL AND set_aside IS NULL ORDER BY id", task
        )
    )


async def count(tx: Transaction, task: TaskId, most: int) -> int:
    """How many secrets a task and all below it were ever given, counted up to `most`: a child spends its parents'.

    The identity of a task is none.
    """
    row = await tx.fetchrow(
        "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
        " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
        " SELECT COUNT(*) AS n FROM (SELECT 1 FROM leases WHERE task IN (SELECT id FROM line) AND engine <> $2"
        " LIMIT $3) AS given",
        task,
        IDENTITY,
        most,
    )
    return 0 if row is None else int(row["n"])


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


async def by_name(tx: Transaction, name: str) -> Lease | None:
    """The lease a principal belongs to, closed or not, at whichever target: no two leases share a name."""
    row = await tx.fetchrow("SELECT * FROM leases WHERE name = $1", name)
    return None if row is None else read("leases", row["id"], row, lease_of)


async def by_names(tx: Transaction, names: Sequence[str]) -> Mapping[str, Lease | None]:
    """The leases principals belong to, closed or not; None for one that was set aside. At most `NAMES` at a time."""
    wanted = [*names, *[""] * (NAMES - len(names))]
    rows = await tx.fetch(f"SELECT * FROM leases WHERE name IN ({_NAMES}) ORDER BY id", *wanted)
    known = [(row["name"], row) for row in rows]
    return {name: None if row["set_aside"] else read("leases", row["id"], row, lease_of) for name, row in known}


async def set_aside_of(tx: Transaction, task: TaskId) -> int:
    """How many leases of a task and all below it can't be read and may stand for something outside."""
    row = await tx.fetchrow(
        "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
        " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
        " SELECT COUNT(*) AS n FROM leases l JOIN line ON line.id = l.task"
        " WHERE l.set_aside IS NOT NULL AND l.closed_at IS NULL",
        task,
    )
    return 0 if row is None else int(row["n"])


NAMES = 100
_NAMES: LiteralString = ", ".join(f"${number}" for number in range(1, 101))


async def page(
    tx: Transaction, *, after: LeaseId | None, limit: int, task: TaskId | None = None, open_only: bool = False
) -> Sequence[Lease]:
    """Leases in the order of their birth, those after `after`; of one task, or only open ones, when asked for."""
    which: LiteralString = (
        "id > $1 AND set_aside IS NULL AND closed_at IS NULL" if open_only else "id > $1 AND set_aside IS NULL"
    )
    if task is None:
        return all_of(await tx.fetch(f"SELECT * FROM leases WHERE {which} ORDER BY id LIMIT $2", after or "", limit))
    sql: LiteralString = f"SELECT * FROM leases WHERE {which} AND task = $3 ORDER BY id LIMIT $2"
    return all_of(await tx.fetch(sql, after or "", limit, task))


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
        end_due_at=moment_of(row["end_due_at"]),
    )


def all_of(rows: Sequence[Row]) -> list[Lease]:
    """Rows as values. Raises Unreadable."""
    return [read("leases", row["id"], row, lease_of) for row in rows]
