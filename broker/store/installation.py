"""Who this store belongs to: made once, with the store."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime

from ca.runtime.clock import micros
from ca.runtime.database import Transaction

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The facts a store is born with.

    `id` is part of every principal's name. `name_key` makes those names unguessable. `incarnation` is one uninterrupted
    life of the store; cursors and claims of another one are not believed (traps 7, 19, 20).
    """

    id: str
    incarnation: str
    name_key: bytes = field(repr=False)


async def settle(tx: Transaction, now: datetime) -> Installation:
    """The installation of this store, made now if it is new."""
    await tx.execute(
        "INSERT INTO installation (one, id, incarnation, name_key, made_at) VALUES (1, $1, $2, $3, $4)"
        " ON CONFLICT (one) DO NOTHING",
        _drawn(8),
        _drawn(12),
        secrets.token_hex(32),
        micros(now),
    )
    await tx.execute("INSERT INTO epoch (one, n) VALUES (1, 0) ON CONFLICT (one) DO NOTHING")
    return await read(tx)


async def read(tx: Transaction) -> Installation:
    """The installation of a store that was settled."""
    row = await tx.fetchrow("SELECT id, incarnation, name_key FROM installation WHERE one = 1")
    if row is None:
        raise RuntimeError("the store was not settled")
    return Installation(id=row["id"], incarnation=row["incarnation"], name_key=bytes.fromhex(row["name_key"]))


async def begin_incarnation(tx: Transaction) -> Installation:
    """Begin another life, after a restore or a promotion: every cursor held outside is void, no claim matches."""
    await tx.execute("UPDATE installation SET incarnation = $1 WHERE one = 1", _drawn(12))
    return await read(tx)


def _drawn(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
