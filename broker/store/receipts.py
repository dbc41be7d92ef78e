"""Receipts: appended in the transaction of the act they tell of, each writer's in one chain.

The hash is computed inside the unit, after the previous one of the same writer was read there: chain order is commit
order (testing 4.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from broker.audit.chain import Head
from broker.audit.chain import after as chained
from broker.model.ids import LeaseId, TaskId
from broker.model.receipt import Entry, Receipt, ReceiptKind
from broker.store.values import mapping_of, text_of
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction


async def append(tx: Transaction, writer: str, *receipts: Receipt) -> Sequence[Entry]:
    """Write receipts, in this order, at the end of the writer's chain."""
    head = await tx.fetchrow("SELECT number, hash FROM receipts WHERE writer = $1 ORDER BY number DESC LIMIT 1", writer)
    end = Head.empty(writer) if head is None else Head(writer=writer, number=head["number"], hash=head["hash"])
    entries: list[Entry] = []
    for receipt in receipts:
        entry = chained(end, receipt)
        await _insert(tx, entry)
        entries.append(entry)
        end = Head.of(entry)
    return entries


async def _insert(tx: Transaction, entry: Entry) -> None:
    receipt = entry.receipt
    await tx.execute(
        "INSERT INTO receipts (writer, number, previous, hash, kind, at, actor, task, lease, body)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        entry.writer,
        entry.number,
        entry.previous,
        entry.hash,
        receipt.kind,
        micros(receipt.at),
        receipt.actor,
        receipt.task,
        receipt.lease,
        text_of(receipt.body),
    )


_WRITERS: LiteralString = (
    "WITH RECURSIVE writers (writer) AS (SELECT MIN(writer) FROM receipts UNION ALL"
    " SELECT (SELECT MIN(writer) FROM receipts WHERE writer > w.writer) FROM writers w WHERE w.writer IS NOT NULL)"
)
"""Each writer by one look into the index, however long its chain is."""

_ENDS: LiteralString = (
    "FROM writers w JOIN receipts r ON r.writer = w.writer"
    " AND r.number = (SELECT MAX(number) FROM receipts WHERE writer = w.writer)"
)


async def writers(tx: Transaction) -> Sequence[str]:
    """Every writer that has a chain."""
    rows = await tx.fetch(f"{_WRITERS} SELECT writer FROM writers WHERE writer IS NOT NULL ORDER BY writer")
    return [row["writer"] for row in rows]


async def heads(tx: Transaction) -> Sequence[Head]:
    """Where each writer's chain ends."""
    rows = await tx.fetch(f"{_WRITERS} SELECT r.writer, r.number, r.hash {_ENDS} ORDER BY r.writer")
    return [Head(writer=row["writer"], number=row["number"], hash=row["hash"]) for row in rows]


async def newest_heads(tx: Transaction, limit: int) -> Sequence[Entry]:
    """The last entries of the chains that were written to last, newest first."""
    rows = await tx.fetch(f"{_WRITERS} SELECT r.* {_ENDS} ORDER BY r.at DESC, r.writer LIMIT $1", limit)
    return [_entry_of(row) for row in rows]


async def chain(tx: Transaction, writer: str, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
    """A piece of one writer's chain, from the entry after number `after`."""
    rows = await tx.fetch(
        "SELECT * FROM receipts WHERE writer = $1 AND number > $2 ORDER BY number LIMIT $3", writer, after, limit
    )
    return [_entry_of(row) for row in rows]


async def count(tx: Transaction, kind: ReceiptKind, task: TaskId) -> int:
    """How many of one kind there are of a task and all below it."""
    row = await tx.fetchrow(
        "WITH RECURSIVE line (id) AS (SELECT id FROM tasks WHERE id = $1"
        " UNION ALL SELECT t.id FROM tasks t JOIN line ON t.parent = line.id)"
        " SELECT COUNT(*) AS n FROM receipts WHERE task IN (SELECT id FROM line) AND kind = $2",
        task,
        kind,
    )
    return 0 if row is None else int(row["n"])


async def of_task(tx: Transaction, task: TaskId, limit: int = 1000) -> Sequence[Entry]:
    """What is recorded about one task, oldest first."""
    rows = await tx.fetch("SELECT * FROM receipts WHERE task = $1 ORDER BY at, writer, number LIMIT $2", task, limit)
    return [_entry_of(row) for row in rows]


async def page(tx: Transaction, *, after: tuple[str, int] | None, limit: int) -> Sequence[Entry]:
    """Entries of all writers, writer by writer, those after (writer, number)."""
    writer, number = after or ("", 0)
    rows = await tx.fetch(
        "SELECT * FROM receipts WHERE writer > $1 OR (writer = $1 AND number > $2) ORDER BY writer, number LIMIT $3",
        writer,
        number,
        limit,
    )
    return [_entry_of(row) for row in rows]


def _entry_of(row: Row) -> Entry:
    receipt = Receipt(
        kind=ReceiptKind(row["kind"]),
        at=instant(row["at"]),
        actor=row["actor"],
        task=None if row["task"] is None else TaskId(row["task"]),
        lease=None if row["lease"] is None else LeaseId(row["lease"]),
        body=mapping_of(row["body"]),
    )
    return Entry(
        writer=row["writer"], number=row["number"], previous=row["previous"], hash=row["hash"], receipt=receipt
    )
