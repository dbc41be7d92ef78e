"""Tasks: the fence, the ending of a tree, and how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from broker.errors import Fenced
from broker.model.ids import InstanceId, TaskId
from broker.model.lease import IDENTITY
from broker.model.task import LIVE, EndReason, Task, TaskEvent, TaskState, after
from broker.store.quarantine import Unreadable
from broker.store.task_rows import task_of
from broker.store.values import moment_of, span_of, text_of, time_of
from ca.errors import NotFound, Stale
from ca.runtime.clock import micros
from ca.runtime.database import Row, Transaction
from ca.spiffe.id import SpiffeId

_BEATS_MISSED = 3


async def insert(tx: Transaction, task: Task) -> None:
    """Write a new task. A child's transaction begins with `touch` of its parent. Raises Duplicate."""
    await tx.execute(
        "INSERT INTO tasks (id, root, parent, state, version, touched, owner, instance, purpose, scope, opened_at,"
        " deadline, heartbeat, heard_at, due_at, key)"
        " VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        task.id,
        task.root,
        task.parent,
        task.state,
        task.version,
        str(task.owner),
        task.instance,
        task.purpose,
        text_of(task.scope.to_json()),
        micros(task.opened_at),
        time_of(task.deadline),
        span_of(task.heartbeat),
        micros(task.heard_at),
        _due(task.deadline, task.heartbeat, task.heard_at),
        task.key,
    )


async def get(tx: Transaction, task: TaskId) -> Task:
    """One task. Raises NotFound."""
    row = await tx.fetchrow("SELECT * FROM tasks WHERE id = $1", task)
    if row is None:
        raise NotFound("there is no such task")
    return task_of(row)


async def chain(tx: Transaction, task: TaskId) -> Sequence[Task]:
    """The task and every task above it, root first, whatever their states. Raises NotFound."""
    rows = await tx.fetch(
        "WITH RECURSIVE line (id, parent, depth) AS ("
        " SELECT id, parent, 0 FROM tasks WHERE id = $1"
        " UNION ALL SELECT t.id, t.parent, line.depth + 1 FROM tasks t JOIN line ON t.id = line.parent)"
        " SELECT t.* FROM tasks t JOIN line ON line.id = t.id ORDER BY line.depth DESC",
        task,
    )
    if not rows:
        raise NotFound("there is no such task")
    return [task_of(row) for row in rows]


async def _living_above(tx: Transaction, task: Task) -> Sequence[Task]:
    line = () if task.parent is None else await chain(tx, task.parent)
    if not all(link.is_live for link in line):
        raise Fenced("a task above this one ended")
    return line


async def touch(
    tx: Transaction,
    task: TaskId,
    version: int | None,
    now: datetime | None = None,
    *,
    states: frozenset[TaskState] = LIVE,
) -> Sequence[Task]:
    """The fence: the first statement of every transaction that adds authority to a task; answers its chain, root first.

    It writes the row, so on a store with many writers an ending and a grant wait for each other instead of passing one
    another by (traps 6). Then liveness is derived up to the root; with `now`, time that ran out counts as an ending
    that has not been written yet. Without `version` the task is taken as it stands.

    Raises:
        Fenced: the task, or one above it, ended, changed since `version`, or its time is up; or its state is not one
            of `states`.
    """
    row = await tx.fetchrow(
        "UPDATE tasks SET touched = touched + 1 WHERE id = $1 AND version = COALESCE($2, version)"
        " AND ended_at IS NULL RETURNING *",
        task,
        version,
    )
    if row is None:
        raise Fenced("the task ended" if version is None else "the task ended or changed since this was decided")
    own = task_of(row)
    line = [*await _living_above(tx, own), own]
    for link in line:
        if link.unreadable is not None:
            raise Unreadable("tasks", link.id, link.unreadable)
    if line[-1].state not in states:
        raise Fenced(f"the task is `{line[-1].state}`")
    for link in line:
        if now is None:
            break
        if link.is_past_deadline(now) or link.is_silent(now):
            raise Fenced("the task's time is up, or it has gone silent")
    return line


async def hold_budgets(tx: Transaction, task: Task) -> None:
    """Let whoever spends what is bounded above `task` wait for one another, root first, as an ending goes.

    A budget is counted, and on a store with many writers each must count what the others spent. Comes before `touch`.
    """
    for link in () if task.parent is None else await chain(tx, task.parent):
        if link.scope.budget.secrets is not None:
            await tx.execute("UPDATE tasks SET touched = touched + 1 WHERE id = $1", link.id)


async def without_identity(tx: Transaction, limit: int) -> Sequence[TaskId]:
    """Live tasks bound to an instance that have no identity of their own, and had none taken from them by anybody."""
    rows = await tx.fetch(
        "SELECT t.id FROM tasks t WHERE t.ended_at IS NULL AND t.instance IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM leases l WHERE l.task = t.id AND l.engine = $1"
        " AND (l.closed_at IS NULL OR l.close_reason IN ('asked', 'operator'))) ORDER BY t.id LIMIT $2",
        IDENTITY,
        limit,
    )
    return [TaskId(row["id"]) for row in rows]


async def end_tree(
    tx: Transaction, task: TaskId, event: TaskEvent, *, reason: EndReason, words: str | None, now: datetime
) -> list[Task]:
    """End a task and everything below it; answers those that this call ended, parents first; none if it had ended.

    The step downwards is repeated until it changes no row, so a child that was being written meanwhile is found.
    """
    ended = _sorted(await tx.fetch(_END_ONE, _ended(event), micros(now), reason, task, words))
    while True:
        below = _sorted(await tx.fetch(_END_BELOW, TaskState.CANCELLED, micros(now), EndReason.PARENT_ENDED, task))
        if not below:
            return ended
        ended += below


_END_ONE = """
UPDATE tasks SET state = $1, version = version + 1, ended_at = $2, end_reason = $3, end_words = $5, due_at = NULL
WHERE ended_at IS NULL AND id = $4 RETURNING *"""
_END_BELOW = """
UPDATE tasks SET state = $1, version = version + 1, ended_at = $2, end_reason = $3, due_at = NULL
WHERE ended_at IS NULL AND parent IN (
    SELECT id FROM tasks WHERE ended_at IS NOT NULL AND root = (SELECT root FROM tasks WHERE id = $4)
) RETURNING *"""


def _ended(event: TaskEvent) -> TaskState:
    (state,) = {after(live, event) for live in LIVE}  # an ending leads to one state, from wherever
    return state


def _sorted(rows: Sequence[Row]) -> list[Task]:
    return sorted((task_of(row) for row in rows), key=lambda task: task.id)


async def beat(tx: Transaction, task: TaskId, now: datetime) -> None:
    """It was heard of; never moves backwards, never revives. Raises NotFound, Fenced."""
    known = await get(tx, task)
    if not known.is_live:
        raise Fenced("the task ended")
    heard = max(now, known.heard_at)
    await tx.execute(
        "UPDATE tasks SET heard_at = $2, due_at = $3 WHERE id = $1 AND ended_at IS NULL",
        task,
        micros(heard),
        _due(known.deadline, known.heartbeat, heard),
    )


async def pardon(tx: Transaction, now: datetime) -> int:
    """Count the silence of every live task from now on; how many had been silent for too long."""
    return await tx.execute(
        "UPDATE tasks SET heard_at = $1, due_at = CASE WHEN deadline < $1 + $2 * heartbeat THEN deadline"
        " ELSE $1 + $2 * heartbeat END"
        " WHERE ended_at IS NULL AND due_at <= $1 AND heartbeat IS NOT NULL AND heard_at + $2 * heartbeat <= $1",
        micros(now),
        _BEATS_MISSED,
    )


async def last_heard(tx: Transaction) -> datetime | None:
    """When the last of all live tasks was heard of."""
    row = await tx.fetchrow("SELECT MAX(heard_at) AS at FROM tasks WHERE ended_at IS NULL")
    return None if row is None else moment_of(row["at"])


async def heard_by(tx: Transaction, now: datetime) -> int:
    """Nobody was heard later than now: after the clock was set back silence counts from here on."""
    return await tx.execute(
        "UPDATE tasks SET heard_at = $1, due_at = CASE WHEN deadline < $1 + $2 * heartbeat THEN deadline"
        " ELSE $1 + $2 * heartbeat END WHERE ended_at IS NULL AND heartbeat IS NOT NULL AND heard_at > $1",
        micros(now),
        _BEATS_MISSED,
    )


async def update(tx: Transaction, task: Task, version: int) -> None:
    """Write a live task's new state, scope and version; its leases fall due, to be re-stamped or revoked.

    Raises:
        Stale: it is no longer at `version`, or ended.
    """
    changed = await tx.execute(
        "UPDATE tasks SET state = $3, version = $4, scope = $5, deadline = $6, heartbeat = $7, heard_at = $8,"
        " due_at = $9 WHERE id = $1 AND version = $2 AND ended_at IS NULL",
        task.id,
        version,
        task.state,
        task.version,
        text_of(task.scope.to_json()),
        time_of(task.deadline),
        span_of(task.heartbeat),
        micros(task.heard_at),
        _due(task.deadline, task.heartbeat, task.heard_at),
    )
    if changed != 1:
        raise Stale("the task changed meanwhile")
    await tx.execute(
        "UPDATE leases SET due_at = 0, version = version + 1"
        " WHERE task = $1 AND closed_at IS NULL AND state = 'active'",
        task.id,
    )


async def outdate_below(tx: Transaction, task: TaskId) -> Sequence[Task]:
    """Raise the version of every live task below one, because what they may reach has shrunk; answers them.

    What was decided for them under the wider scope is fenced, and their leases are looked at again.
    """
    rows = await tx.fetch(
        f"UPDATE tasks SET version = version + 1 WHERE ended_at IS NULL AND id IN ({_BELOW}) RETURNING *",
        task,
    )
    await tx.execute(
        "UPDATE leases SET due_at = 0, version = version + 1"
        f" WHERE closed_at IS NULL AND state = 'active' AND task IN ({_BELOW})",
        task,
    )
    return _sorted(rows)


_BELOW = """
WITH RECURSIVE below (id) AS (
 SELECT id FROM tasks WHERE parent = $1 UNION ALL SELECT t.id FROM tasks t JOIN below ON t.parent = below.id)
SELECT id FROM below"""


async def due(tx: Transaction, now: datetime, limit: int) -> Sequence[Task]:
    """Live tasks past their deadline or silent, the most overdue first."""
    rows = await tx.fetch(
        "SELECT * FROM tasks WHERE ended_at IS NULL AND due_at <= $1 ORDER BY due_at, id LIMIT $2", micros(now), limit
    )
    return [task_of(row) for row in rows]


async def by_instance(tx: Transaction, instance: InstanceId) -> Sequence[Task]:
    """The live tasks bound to one instance."""
    rows = await tx.fetch("SELECT * FROM tasks WHERE instance = $1 AND ended_at IS NULL ORDER BY id", instance)
    return [task_of(row) for row in rows]


async def live_instances(tx: Transaction) -> Sequence[InstanceId]:
    """Every instance that has a live task: what the attestor is asked to watch."""
    rows = await tx.fetch(
        "SELECT DISTINCT instance FROM tasks WHERE instance IS NOT NULL AND ended_at IS NULL ORDER BY instance"
    )
    return [InstanceId(row["instance"]) for row in rows]


async def ended_instances(tx: Transaction, since: datetime) -> Sequence[InstanceId]:
    """Instances whose own end ended a task since then, the earliest first: their keys may still be about."""
    rows = await tx.fetch(
        "SELECT instance, MAX(ended_at) AS ended FROM tasks"
        " WHERE instance IS NOT NULL AND end_reason = 'process-ended' AND ended_at >= $1"
        " GROUP BY instance ORDER BY ended, instance",
        micros(since),
    )
    return [InstanceId(row["instance"]) for row in rows]


async def live(tx: Transaction) -> Sequence[Task]:
    """Every live task, for the snapshot of a stream and for ending them all."""
    return [task_of(row) for row in await tx.fetch("SELECT * FROM tasks WHERE ended_at IS NULL ORDER BY id")]


async def live_versions(tx: Transaction, root: TaskId | None) -> Sequence[tuple[TaskId, int]]:
    """The live tasks of one tree, or all, with their versions."""
    rows = await tx.fetch(
        "SELECT id, version FROM tasks WHERE ended_at IS NULL AND (root = $1 OR $2 = 1) ORDER BY id",
        root or "",
        int(root is None),
    )
    return [(TaskId(row["id"]), row["version"]) for row in rows]


async def count_live(tx: Transaction, owner: SpiffeId) -> int:
    """How many live tasks one SPIFFE ID has."""
    row = await tx.fetchrow(
        "SELECT COUNT(*) AS n FROM tasks WHERE owner = $1 AND drained_at IS NULL AND ended_at IS NULL",
        str(owner),
    )
    return 0 if row is None else int(row["n"])


async def tree(tx: Transaction, root: TaskId) -> Sequence[Task]:
    """Every task of one tree, oldest first."""
    return [task_of(row) for row in await tx.fetch("SELECT * FROM tasks WHERE root = $1 ORDER BY id", root)]


async def children(tx: Transaction, parent: TaskId) -> Sequence[Task]:
    """The tasks directly below one, oldest first."""
    return [task_of(row) for row in await tx.fetch("SELECT * FROM tasks WHERE parent = $1 ORDER BY id", parent)]


async def page(
    tx: Transaction, *, after: TaskId | None, limit: int, root: TaskId | None = None, live: bool = False
) -> Sequence[Task]:
    """Tasks in the order of their birth, those after `after`; of one tree, or only live ones, when asked for."""
    which: LiteralString = "id > $1 AND ended_at IS NULL" if live else "id > $1"
    if root is None:
        rows = await tx.fetch(f"SELECT * FROM tasks WHERE {which} ORDER BY id LIMIT $2", after or "", limit)
    else:
        sql: LiteralString = f"SELECT * FROM tasks WHERE {which} AND root = $3 ORDER BY id LIMIT $2"
        rows = await tx.fetch(sql, after or "", limit, root)
    return [task_of(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """An ended task of which nothing is left outside."""

    task: TaskId
    root: TaskId
    state: str
    version: int


async def say_drained(tx: Transaction, task: TaskId, now: datetime) -> Drained | None:
    """Say that nothing of an ended task is left outside, if that is so; None when it is not, or was said before."""
    row = await tx.fetchrow(
        "UPDATE tasks SET drained_at = $2 WHERE id = $1 AND ended_at IS NOT NULL AND drained_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.task = tasks.id AND leases.closed_at IS NULL)"
        " RETURNING id, root, state, version",
        task,
        micros(now),
    )
    if row is None:
        return None
    return Drained(task=TaskId(row["id"]), root=TaskId(row["root"]), state=row["state"], version=row["version"])


async def root_of(tx: Transaction, task: TaskId) -> TaskId:
    """The tree a task belongs to. Raises NotFound."""
    row = await tx.fetchrow("SELECT root FROM tasks WHERE id = $1", task)
    if row is None:
        raise NotFound("there is no such task")
    return TaskId(row["root"])


def _due(deadline: datetime | None, heartbeat: timedelta | None, heard: datetime) -> int | None:
    silent = None if heartbeat is None else heard + _BEATS_MISSED * heartbeat
    moments = [moment for moment in (deadline, silent) if moment is not None]
    return time_of(min(moments)) if moments else None
