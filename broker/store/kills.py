"""What a kill reaches: live tasks by what they are called, who owns them, or which process they are bound to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import LiteralString

from broker.model.ids import TaskId
from broker.model.kill import Doomed, Kill, Reach
from broker.model.lease import IDENTITY
from broker.store.task_rows import task_of
from broker.store.values import moment_of
from ca.runtime.clock import micros
from ca.runtime.database import Transaction

_NAMED: Mapping[Reach, LiteralString] = {
    Reach.TASK: "id = $1",
    Reach.TREE: "root IN (SELECT root FROM tasks WHERE id = $1)",
    Reach.AGENT: "owner = $1",
    Reach.PATH: "(owner = $1 OR $1 || '/' = substr(owner, 1, length($1) + 1))",
    Reach.TRUST_DOMAIN: "(owner = $1 OR $1 || '/' = substr(owner, 1, length($1) + 1))",
    Reach.INSTANCE: "instance = $1",
}
"""A path ends at a segment: `…/agents` reaches `…/agents/billing` and not `…/agents-of-others`."""

_LIVE: LiteralString = "drained_at IS NULL AND ended_at IS NULL"
"""The first follows from the second, and is what the index of owners' tasks is for."""


async def newest(tx: Transaction, kill: Kill) -> datetime | None:
    """When the newest live task a kill names was opened, by the clock of whoever opened it."""
    row = await tx.fetchrow(f"SELECT MAX(opened_at) AS at FROM tasks WHERE {_LIVE} AND {_NAMED[kill.reach]}", kill.key)
    return None if row is None else moment_of(row["at"])


async def named(tx: Transaction, kill: Kill, born_by: datetime, after: TaskId | None, limit: int) -> Sequence[TaskId]:
    """Live tasks a kill names that were opened by a moment, in the order of their birth, those after `after`."""
    rows = await tx.fetch(
        f"SELECT id FROM tasks WHERE {_LIVE} AND {_NAMED[kill.reach]} AND opened_at <= $2 AND id > $3"
        " ORDER BY id LIMIT $4",
        kill.key,
        micros(born_by),
        after or "",
        limit,
    )
    return [TaskId(row["id"]) for row in rows]


async def count(tx: Transaction, kill: Kill, born_by: datetime) -> int:
    """How many live tasks a kill names that were opened by a moment."""
    row = await tx.fetchrow(
        f"SELECT COUNT(*) AS n FROM tasks WHERE {_LIVE} AND {_NAMED[kill.reach]} AND opened_at <= $2",
        kill.key,
        micros(born_by),
    )
    return 0 if row is None else int(row["n"])


async def doomed(tx: Transaction, kill: Kill, most: int) -> Doomed:
    """Everything a kill would end now; `most` bounds how many tasks are listed, not how many are counted."""
    line = _doomed(kill)
    rows = await tx.fetch(
        f"{line} SELECT t.* FROM tasks t JOIN doomed ON doomed.id = t.id ORDER BY t.id LIMIT $2", kill.key, most
    )
    counted = await tx.fetchrow(f"{line} SELECT COUNT(*) AS n FROM doomed", kill.key)
    held = await tx.fetch(
        f"{line} SELECT l.target, l.engine, COUNT(*) AS n FROM leases l JOIN doomed ON doomed.id = l.task"
        " WHERE l.closed_at IS NULL GROUP BY l.target, l.engine ORDER BY l.target, l.engine",
        kill.key,
    )
    return Doomed(
        tasks=0 if counted is None else int(counted["n"]),
        first=tuple(task_of(row) for row in rows),
        leases={row["target"]: int(row["n"]) for row in held if row["engine"] != IDENTITY},
        identities=sum(int(row["n"]) for row in held if row["engine"] == IDENTITY),
    )


def _doomed(kill: Kill) -> LiteralString:
    return (
        f"WITH RECURSIVE doomed (id) AS (SELECT id FROM tasks WHERE {_LIVE} AND {_NAMED[kill.reach]}"
        " UNION SELECT t.id FROM tasks t JOIN doomed ON t.parent = doomed.id WHERE t.ended_at IS NULL)"
    )
