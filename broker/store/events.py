"""Events: numbered densely, in the order of their commits (traps 7)."""

from __future__ import annotations

from collections.abc import Sequence

from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import LeaseId, TaskId
from broker.store.quarantine import Unreadable, read
from broker.store.values import mapping_of, text_of
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction


async def append(tx: Transaction, *events: Event) -> Epoch:
    """Write events, in this order; the last thing a unit does.

    The counter's row stays locked from here to the commit: whoever takes a later number commits later, so a reader that
    sees n has seen everything below n. That is why nothing slow may follow.
    """
    row = await tx.fetchrow(
        "UPDATE epoch SET n = n + $1 WHERE one = 1 RETURNING n,"
        " (SELECT incarnation FROM installation WHERE one = 1) AS incarnation",
        len(events),
    )
    if row is None:
        raise RuntimeError("the store was not settled")
    last = int(row["n"])
    for number, event in enumerate(events, start=last - len(events) + 1):
        await tx.execute(
            "INSERT INTO events (n, kind, at, task, root, lease, body) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            number,
            event.kind,
            micros(event.at),
            event.task,
            event.root,
            event.lease,
            text_of(event.body),
        )
    return Epoch(row["incarnation"], last)


async def incarnation(tx: Transaction) -> str:
    """The present life of the store."""
    row = await tx.fetchrow("SELECT incarnation FROM installation WHERE one = 1")
    if row is None:
        raise RuntimeError("the store was not settled")
    found: str = row["incarnation"]
    return found


async def epoch(tx: Transaction) -> Epoch:
    """The newest event."""
    row = await tx.fetchrow("SELECT n FROM epoch WHERE one = 1")
    if row is None:
        raise RuntimeError("the store was not settled")
    return Epoch(await incarnation(tx), row["n"])


async def oldest(tx: Transaction) -> int:
    """The number of the oldest event that is kept; one more than the newest when none is."""
    row = await tx.fetchrow("SELECT MIN(n) AS n FROM events")
    return row["n"] if row is not None and row["n"] is not None else (await epoch(tx)).n + 1


async def after(tx: Transaction, cursor: int, limit: int, root: TaskId | None = None) -> Sequence[Event]:
    """Events after number `cursor`, of one tree when asked for; without one they are dense."""
    life = await incarnation(tx)
    if root is None:
        rows = await tx.fetch("SELECT * FROM events WHERE n > $1 ORDER BY n LIMIT $2", cursor, limit)
    else:
        rows = await tx.fetch(
            "SELECT * FROM events WHERE n > $1 AND root = $2 ORDER BY n LIMIT $3", cursor, root, limit
        )
    return [_event_of(row, life) for row in rows]


async def end_of(tx: Transaction, task: TaskId) -> Epoch | None:
    """The event that told of a task's end, if it is still kept."""
    root = await tx.fetchrow("SELECT root FROM tasks WHERE id = $1", task)
    row = await tx.fetchrow(
        "SELECT n FROM events WHERE root = $1 AND task = $2 AND kind = $3 ORDER BY n LIMIT 1",
        "" if root is None else root["root"],
        task,
        EventKind.TASK_ENDED,
    )
    return None if row is None else Epoch(await incarnation(tx), row["n"])


async def forget_before(tx: Transaction, number: int) -> int:
    """Drop events older than `number`; readers with an older cursor get `resync`."""
    return await tx.execute("DELETE FROM events WHERE n < $1", number)


def _event_of(row: Row, life: str) -> Event:
    """One that can't be read keeps its number, so that there is no gap, and tells nothing but that it was."""
    try:
        return read("events", str(row["n"]), row, lambda one: _read_of(one, life))
    except Unreadable as bad:
        return Event(
            kind=EventKind.UNREADABLE,
            at=instant(0),
            task=TaskId(str(row["task"])),
            root=TaskId(str(row["root"])),
            body={"why": bad.reason},
            epoch=Epoch(life, row["n"]),
        )


def _read_of(row: Row, life: str) -> Event:
    return Event(
        kind=EventKind(row["kind"]),
        at=instant(row["at"]),
        task=TaskId(row["task"]),
        root=TaskId(row["root"]),
        lease=None if row["lease"] is None else LeaseId(row["lease"]),
        body=mapping_of(row["body"]),
        epoch=Epoch(life, row["n"]),
    )
