"""Operators who come over the network: a certificate's fingerprint, bound to verbs on the admin socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from broker.model.caller import Operator, Verb
from ca.errors import NotFound
from ca.runtime.clock import micros
from ca.runtime.database import Row, Transaction


async def add(tx: Transaction, operator: Operator, fingerprint: str, added_by: str, now: datetime) -> None:
    """Bind a SHA-256 fingerprint (hex) to an operator. Raises Duplicate: the name or the certificate is taken."""
    await tx.execute(
        "INSERT INTO operators (name, fingerprint, verbs, added_at, added_by) VALUES ($1, $2, $3, $4, $5)",
        operator.name,
        fingerprint,
        json.dumps(sorted(operator.verbs)),
        micros(now),
        added_by,
    )


async def all_of(tx: Transaction) -> Sequence[tuple[Operator, str]]:
    """Every operator with the fingerprint of its certificate, by name."""
    rows = await tx.fetch("SELECT * FROM operators ORDER BY name")
    return [(_operator_of(row), row["fingerprint"]) for row in rows]


async def by_fingerprint(tx: Transaction, fingerprint: str) -> Operator | None:
    """Whose certificate this is."""
    row = await tx.fetchrow("SELECT * FROM operators WHERE fingerprint = $1", fingerprint)
    return None if row is None else _operator_of(row)


async def remove(tx: Transaction, name: str) -> None:
    """Take an operator's verbs away. Raises NotFound."""
    if await tx.execute("DELETE FROM operators WHERE name = $1", name) != 1:
        raise NotFound(f"there is no operator `{name[:60]}`")


def _operator_of(row: Row) -> Operator:
    return Operator(name=row["name"], verbs=frozenset(Verb(verb) for verb in json.loads(row["verbs"])))
