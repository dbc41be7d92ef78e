"""Join tokens: only a hash rests here, and redeeming one is one compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction

KEPT = timedelta(days=7)
"""How long a spent or expired token is remembered, for the sentence that says why it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """What the server keeps of a token."""

    id: str
    secret_hash: str
    node: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState:
    """Which node a token makes, and when it was used."""

    node: str
    used_at: datetime | None


async def insert(tx: Transaction, token: StoredToken) -> None:
    """Add a token, and drop those nobody will ask about any more."""
    await tx.execute("DELETE FROM join_tokens WHERE expires_at < $1", micros(token.created_at - KEPT))
    await tx.execute(
        "INSERT INTO join_tokens (id, secret_hash, node, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        token.id,
        token.secret_hash,
        token.node,
        micros(token.created_at),
        micros(token.expires_at),
    )


async def redeem(tx: Transaction, token_id: str, secret_hash: str, now: datetime) -> bool:
    """Use the token up; False when there is none with this secret that is unused and unexpired."""
    used = await tx.execute(
        "UPDATE join_tokens SET used_at = $3"
        " WHERE id = $1 AND secret_hash = $2 AND used_at IS NULL AND expires_at > $3 AND created_at <= $3",
        token_id,
        secret_hash,
        micros(now),
    )
    return used == 1


async def known(tx: Transaction, token_id: str, secret_hash: str) -> TokenState | None:
    """What became of the token with this secret; None when there is none. A guess costs a look and no write."""
    row = await tx.fetchrow(
        "SELECT node, used_at FROM join_tokens WHERE id = $1 AND secret_hash = $2", token_id, secret_hash
    )
    if row is None:
        return None
    return TokenState(node=row["node"] or token_id, used_at=None if row["used_at"] is None else instant(row["used_at"]))
