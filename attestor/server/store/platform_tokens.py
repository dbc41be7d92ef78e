"""To which keys a platform's token was bound (traps 23)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction

KEPT = timedelta(hours=1)
"""How long a token is remembered after its end: longer than any two clocks differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundKey:
    """One key, and what ran when it was bound."""

    key_hash: str
    parts: frozenset[str]
    bound_at: datetime


async def take(tx: Transaction, token: str, subject: str, expires_at: datetime) -> None:
    """Know the token, and hold its row until the unit ends."""
    await tx.execute(
        "INSERT INTO platform_tokens (id, subject, touched, expires_at) VALUES ($1, $2, 0, $3)"
        " ON CONFLICT (id) DO UPDATE SET touched = platform_tokens.touched + 1",
        token,
        subject,
        micros(expires_at),
    )


async def keys(tx: Transaction, token: str) -> Sequence[BoundKey]:
    """In the order in which they were bound."""
    rows = await tx.fetch(
        "SELECT key_hash, parts, bound_at FROM platform_token_keys WHERE token = $1 ORDER BY n", token
    )
    return [
        BoundKey(key_hash=row["key_hash"], parts=frozenset(json.loads(row["parts"])), bound_at=instant(row["bound_at"]))
        for row in rows
    ]


async def add_key(tx: Transaction, token: str, n: int, key: BoundKey) -> None:
    """The `n`th key of a token; its row is held."""
    await tx.execute(
        "INSERT INTO platform_token_keys (token, n, key_hash, parts, bound_at) VALUES ($1, $2, $3, $4, $5)",
        token,
        n,
        key.key_hash,
        json.dumps(sorted(key.parts)),
        micros(key.bound_at),
    )


async def subject_of(tx: Transaction, token: str) -> str | None:
    """Whom a token was found to speak for, when it was good."""
    row = await tx.fetchrow("SELECT subject FROM platform_tokens WHERE id = $1", token)
    subject: str | None = row["subject"] if row else None
    return subject


async def prune(tx: Transaction, now: datetime) -> None:
    """Forget tokens nobody can show any more."""
    before = micros(now - KEPT)
    await tx.execute(
        "DELETE FROM platform_token_keys WHERE token IN (SELECT id FROM platform_tokens WHERE expires_at < $1)", before
    )
    await tx.execute("DELETE FROM platform_tokens WHERE expires_at < $1", before)
