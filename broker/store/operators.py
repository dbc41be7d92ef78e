"""Operators who come over the network: a certificate, bound to verbs on the operators' socket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model.caller import Operator, Verb
from ca.errors import NotFound
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An operator, the SHA-256 of its certificate in hex, and the certificate itself (DER)."""

    operator: Operator
    fingerprint: str
    certificate: bytes


async def add(tx: Transaction, operator: Operator, certificate: bytes, added_by: str, now: datetime) -> None:
    """Bind a certificate (DER) to an operator. Raises Duplicate: the name or the certificate is taken."""
    await tx.execute(
        "INSERT INTO operators (name, fingerprint, certificate, verbs, added_at, added_by)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        operator.name,
        hashlib.sha256(certificate).hexdigest(),
        certificate,
        json.dumps(sorted(operator.verbs)),
        micros(now),
        added_by,
    )


async def all_of(tx: Transaction) -> Sequence[Known]:
    """Every operator, by name."""
    return [_known_of(row) for row in await tx.fetch("SELECT * FROM operators ORDER BY name")]


async def added_at(tx: Transaction, name: str) -> datetime | None:
    """Since when an operator is known; None of one on the operators' socket."""
    row = await tx.fetchrow("SELECT added_at FROM operators WHERE name = $1", name)
    return None if row is None else instant(row["added_at"])


async def remove(tx: Transaction, name: str) -> None:
    """Take an operator's verbs away. Raises NotFound."""
    if await tx.execute("DELETE FROM operators WHERE name = $1", name) != 1:
        raise NotFound(f"there is no operator `{name[:60]}`")


def _known_of(row: Row) -> Known:
    operator = Operator(name=row["name"], verbs=frozenset(Verb(verb) for verb in json.loads(row["verbs"])))
    return Known(operator=operator, fingerprint=row["fingerprint"], certificate=bytes(row["certificate"]))
