"""Which leases something is due for, in an order that is fair, each found by an index.

An ended task's leases are *called in*: they fall due at once, and their due time is no moment but a place in the line,
counted from 1 for each task. So a task with ten thousand leases waits for its second one until every other task that
ended has had its first. What is due at a real moment (a renewal, another try) has a share of every batch of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model.ids import LeaseId, TaskId
from broker.model.lease import LATE, Lease
from broker.store.leases import all_of
from broker.store.values import time_of
from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction

PLACES = 86_400_000_000
"""Due times below this are places in a line; as moments they would lie on the first day of 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whose leases one broker attends to: its own at once, those another touched last when they are as old as that."""

    broker: str
    others_until: datetime


@dataclass(frozen=True, slots=True)
class Called:
    """An ended task whose leases are to be made due."""

    task: TaskId
    ended_at: datetime


async def to_call(tx: Transaction, limit: int) -> Sequence[Called]:
    """Ended tasks whose leases nobody called in yet, the longest ended first."""
    rows = await tx.fetch(
        "SELECT id, ended_at FROM tasks WHERE ended_at IS NOT NULL AND called_at IS NULL"
        " ORDER BY ended_at, id LIMIT $1",
        limit,
    )
    return [Called(TaskId(row["id"]), instant(row["ended_at"])) for row in rows]


async def call_in(tx: Transaction, called: Called, limit: int, after: int = 0) -> int:
    """Make active leases of an ended task due, in places after `after`; how many. Fewer than `limit`: all are.

    What can't be taken back is due to end when it ends by itself, whatever became of its task.
    """
    return await tx.execute(
        "UPDATE leases SET due_at = line.place + $2, version = version + 1,"
        ' end_due_at = CASE WHEN guarantee LIKE \'%"ends":"at-once"%\' THEN $3 ELSE until END'
        " FROM (SELECT id AS called, ROW_NUMBER() OVER (ORDER BY id) AS place FROM leases WHERE task = $1"
        " AND closed_at IS NULL AND state = 'active' AND end_due_at IS NULL ORDER BY id LIMIT $4) AS line"
        " WHERE leases.id = line.called AND leases.state = 'active' AND leases.end_due_at IS NULL",
        called.task,
        after,
        time_of(called.ended_at),
        limit,
    )


async def say_called(tx: Transaction, task: TaskId, now: datetime) -> None:
    """Every lease of an ended task has been called in."""
    await tx.execute("UPDATE tasks SET called_at = $2 WHERE id = $1 AND called_at IS NULL", task, micros(now))


async def due(tx: Transaction, target: str, now: datetime, turn: Turn, limit: int) -> Sequence[Lease]:
    """The leases of one target that something is due for; every kind of them has a share of `limit`."""
    called = await _called(tx, target, turn, limit)
    timed = await _timed(tx, target, now, turn, limit)
    active = [] if len(called) + len(timed) < limit else await active_due(tx, target, now, turn, limit // 4)
    share = limit // 3
    return _distinct((*active, *called[:share], *timed[:share], *called[share:], *timed[share:]), limit)


async def _called(tx: Transaction, target: str, turn: Turn, limit: int) -> Sequence[Lease]:
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND target = $1 AND closed_at IS NULL AND due_at < $2"
        " AND (broker = $3 OR end_due_at IS NULL OR end_due_at <= $4 OR end_due_at = until)"
        " ORDER BY due_at, id LIMIT $5",
        target,
        PLACES,
        turn.broker,
        micros(turn.others_until),
        limit,
    )
    return all_of(rows)


async def _timed(tx: Transaction, target: str, now: datetime, turn: Turn, limit: int) -> Sequence[Lease]:
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND target = $1 AND closed_at IS NULL AND due_at >= $2 AND due_at <= $3"
        " AND (due_at <= $4 OR broker = $5) ORDER BY due_at, id LIMIT $6",
        target,
        PLACES,
        micros(now),
        micros(turn.others_until),
        turn.broker,
        limit,
    )
    return all_of(rows)


async def active_due(tx: Transaction, target: str, now: datetime, turn: Turn, limit: int) -> Sequence[Lease]:
    """Leases in use that are to be renewed, or given up, at a moment that has come."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND state = 'active' AND target = $1 AND due_at <= $2"
        " AND (due_at <= $3 OR broker = $4) ORDER BY due_at, id LIMIT $5",
        target,
        micros(now),
        micros(turn.others_until),
        turn.broker,
        limit,
    )
    return all_of(rows)


async def stalled(tx: Transaction, target: str, now: datetime, turn: Turn, limit: int) -> Sequence[Lease]:
    """Endings that should be over and were put off: what kept them may be over."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND closed_at IS NULL AND access_ended_at IS NULL AND end_due_at IS NOT NULL"
        " AND target = $1 AND end_due_at <= $2 AND (end_due_at <= $3 OR broker = $4) ORDER BY end_due_at, id LIMIT $5",
        target,
        micros(now),
        micros(turn.others_until),
        turn.broker,
        limit,
    )
    return all_of(rows)


async def due_again(tx: Transaction, now: datetime) -> int:
    """Make due what was put off to a moment that is to come a second time, and what should have ended at one."""
    said = await tx.execute(
        "UPDATE leases SET end_due_at = $1, version = version + 1"
        " WHERE closed_at IS NULL AND set_aside IS NULL AND end_due_at > $1"
        ' AND guarantee LIKE \'%"ends":"at-once"%\'',
        micros(now),
    )
    return said + await tx.execute(
        "UPDATE leases SET due_at = 0, version = version + 1"
        " WHERE closed_at IS NULL AND set_aside IS NULL AND state IN ('revoking', 'in_doubt') AND due_at > $1",
        micros(now),
    )


async def received_by(tx: Transaction, now: datetime) -> int:
    """No secret was made later than now: after the clock was set back the time to acknowledge counts from here on."""
    return await tx.execute(
        "UPDATE leases SET ack_by = $1 + (ack_by - activated_at), version = version + 1,"
        " due_at = CASE WHEN due_at > $1 + (ack_by - activated_at) THEN $1 + (ack_by - activated_at) ELSE due_at END"
        " WHERE closed_at IS NULL AND set_aside IS NULL AND state = 'active' AND acknowledged_at IS NULL"
        " AND activated_at > $1 AND ack_by < until",
        micros(now),
    )


async def overdue(tx: Transaction, now: datetime, after: Lease | None, limit: int) -> Sequence[Lease]:
    """Leases whose access should have ended `LATE` before `now` and is not verified gone: by target, oldest first."""
    place = ("", 0, "") if after is None else (after.handle.target, time_of(after.end_due_at) or 0, after.id)
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND closed_at IS NULL AND access_ended_at IS NULL AND end_due_at IS NOT NULL"
        " AND end_due_at <= $1 AND (target, end_due_at, id) > ($2, $3, $4) ORDER BY target, end_due_at, id LIMIT $5",
        micros(now - LATE),
        *place,
        limit,
    )
    return all_of(rows)


async def count_overdue(tx: Transaction, now: datetime) -> Mapping[str, tuple[int, datetime]]:
    """Engine → how many are overdue there, and since when the oldest is."""
    rows = await tx.fetch(
        "SELECT engine, COUNT(*) AS n, MIN(end_due_at) AS oldest FROM leases WHERE closed_at IS NULL"
        " AND access_ended_at IS NULL AND end_due_at IS NOT NULL AND end_due_at <= $1 GROUP BY engine ORDER BY engine",
        micros(now - LATE),
    )
    return {row["engine"]: (int(row["n"]), instant(row["oldest"])) for row in rows}


async def open_at(tx: Transaction, target: str, limit: int) -> Sequence[Lease]:
    """Leases that are open at one target, whatever their state."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND target = $1 AND closed_at IS NULL ORDER BY due_at, id LIMIT $2",
        target,
        limit,
    )
    return all_of(rows)


async def of_called(tx: Transaction, tasks: Iterable[Called], limit: int) -> Sequence[Lease]:
    """Active leases of ended tasks that can't be called in, because the store takes nothing."""
    found: list[Lease] = []
    for called in tasks:
        rows = await tx.fetch(
            "SELECT * FROM leases WHERE set_aside IS NULL"
            " AND task = $1 AND closed_at IS NULL AND state = 'active' ORDER BY id LIMIT $2",
            called.task,
            limit,
        )
        found += all_of(rows)
    return found[:limit]


async def half_made(tx: Transaction, broker: str, limit: int) -> Sequence[Lease]:
    """Intents of every broker process but `broker`."""
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND state = 'intended' AND (broker < $1 OR broker > $1) ORDER BY broker, id LIMIT $2",
        broker,
        limit,
    )
    return all_of(rows)


async def targets(tx: Transaction) -> Sequence[str]:
    """The targets at which something may be left, also those no longer configured: from one name to the next."""
    rows = await tx.fetch(
        "WITH RECURSIVE step (target) AS ("
        " SELECT MIN(target) FROM leases WHERE closed_at IS NULL UNION ALL"
        " SELECT (SELECT MIN(target) FROM leases WHERE closed_at IS NULL AND target > step.target) FROM step"
        " WHERE step.target IS NOT NULL) SELECT target FROM step WHERE target IS NOT NULL ORDER BY target"
    )
    return [row["target"] for row in rows]


async def active_at(
    tx: Transaction, target: str, after: tuple[datetime, LeaseId] | None, limit: int
) -> Sequence[Lease]:
    """A page of the active leases of one target, in the order in which they fall due: each has a principal there.

    One that is moved meanwhile may be missed or come twice.
    """
    moment, lease = (0, "") if after is None else (micros(after[0]), after[1])
    rows = await tx.fetch(
        "SELECT * FROM leases WHERE set_aside IS NULL"
        " AND state = 'active' AND target = $1 AND (due_at, id) > ($2, $3)"
        " ORDER BY due_at, id LIMIT $4",
        target,
        moment,
        lease,
        limit,
    )
    return all_of(rows)


def _distinct(leases: Iterable[Lease], limit: int) -> list[Lease]:
    return list({lease.id: lease for lease in leases}.values())[:limit]
