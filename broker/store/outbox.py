"""What another party must still be told: written with the act, sent until answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.store.quarantine import read
from broker.store.values import mapping_of, text_of
from ca.runtime.clock import micros
from ca.runtime.database import Row, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing to tell one party; `id` names the act, so telling it twice is telling it once."""

    id: str
    party: str
    kind: str
    body: Mapping[str, Any]
    attempts: int = 0


async def add(tx: Transaction, message: Message, now: datetime) -> None:
    """Owe `message`; one that is owed already stays as it is."""
    await tx.execute(
        "INSERT INTO outbox (id, party, kind, body, made_at, due_at, attempts) VALUES ($1, $2, $3, $4, $5, $5, 0)"
        " ON CONFLICT (id) DO NOTHING",
        message.id,
        message.party,
        message.kind,
        text_of(message.body),
        micros(now),
    )


async def due(tx: Transaction, party: str, now: datetime, limit: int) -> Sequence[Message]:
    """What a party should be told now, the longest owed first."""
    rows = await tx.fetch(
        "SELECT * FROM outbox WHERE party = $1 AND due_at <= $2 AND set_aside IS NULL ORDER BY due_at, id LIMIT $3",
        party,
        micros(now),
        limit,
    )
    return [read("outbox", row["id"], row, _message_of) for row in rows]


def _message_of(row: Row) -> Message:
    body = mapping_of(row["body"])
    return Message(id=row["id"], party=row["party"], kind=row["kind"], body=body, attempts=row["attempts"])


async def due_again(tx: Transaction, now: datetime) -> int:
    """Make due what was put off to a moment that is to come a second time."""
    return await tx.execute("UPDATE outbox SET due_at = $1 WHERE due_at > $1", micros(now))


async def put_off(tx: Transaction, message: Message, until: datetime) -> None:
    """The party did not answer: try again at `until`."""
    await tx.execute("UPDATE outbox SET due_at = $2, attempts = attempts + 1 WHERE id = $1", message.id, micros(until))


async def done(tx: Transaction, message: Message) -> None:
    """The party answered."""
    await tx.execute("DELETE FROM outbox WHERE id = $1", message.id)
