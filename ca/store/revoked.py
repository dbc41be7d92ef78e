"""What was taken back before its time, and the newest list of each authority that says so.

A row of `ca_revoked` is the truth: it is durable in the transaction that takes something back, and a list is only how
others hear of it. It goes when the certificate has expired for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ca.profiles.crl import Entry
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.store.issued import Issued

GRACE = timedelta(minutes=10)
"""How long after its expiry an entry stays: for peers whose clock is behind."""

_AT_ONCE = 500
"""Names in one statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredList:
    """A list as it was signed."""

    issuer_key_id: bytes
    number: int
    this_update: datetime
    next_update: datetime
    der: bytes = field(repr=False)


async def revoke(tx: Transaction, leaves: Sequence[Issued], reason: str, now: datetime) -> int:
    """Take these back; how many of them were not yet."""
    changed = 0
    for one in leaves:
        changed += await tx.execute(
            "INSERT INTO ca_revoked (issuer_key_id, serial, not_after, revoked_at, reason) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (issuer_key_id, serial) DO NOTHING",
            one.issuer_key_id.hex(),
            f"{one.serial:040x}",
            micros(one.not_after),
            micros(now),
            reason,
        )
    return changed


async def revoke_leaves_of(
    tx: Transaction, instances: Sequence[str], *, alive_at: datetime, reason: str, now: datetime
) -> int:
    """Take back every leaf of these instances that is valid beyond `alive_at`; how many were not yet."""
    changed = 0
    for first in range(0, len(instances), _AT_ONCE):
        piece = instances[first : first + _AT_ONCE]
        places = ", ".join(f"${n}" for n in range(4, len(piece) + 4))
        changed += await tx.execute(
            "INSERT INTO ca_revoked (issuer_key_id, serial, not_after, revoked_at, reason)"
            " SELECT issuer_key_id, serial, not_after, $1, $2 FROM ca_issued"
            f" WHERE kind = 'leaf' AND not_after > $3 AND instance IN ({places})"
            " ON CONFLICT (issuer_key_id, serial) DO NOTHING",
            micros(now),
            reason,
            micros(alive_at),
            *piece,
        )
    return changed


async def is_revoked(tx: Transaction, issuer_key_id: bytes, serial: int) -> bool:
    """Whether this certificate was taken back and has not long expired."""
    row = await tx.fetchrow(
        "SELECT reason FROM ca_revoked WHERE issuer_key_id = $1 AND serial = $2", issuer_key_id.hex(), f"{serial:040x}"
    )
    return row is not None


async def count(tx: Transaction) -> int:
    """How many certificates are taken back and remembered."""
    row = await tx.fetchrow("SELECT COUNT(*) AS number FROM ca_revoked")
    assert row is not None, "a count has a row"
    number: int = row["number"]
    return number


async def numbers(tx: Transaction) -> dict[bytes, int]:
    """The number of the newest list of each authority."""
    rows = await tx.fetch("SELECT issuer_key_id, number FROM ca_lists ORDER BY issuer_key_id")
    return {bytes.fromhex(row["issuer_key_id"]): row["number"] for row in rows}


async def lists(tx: Transaction) -> Sequence[StoredList]:
    """The newest list of each authority, in the order of key ids."""
    rows = await tx.fetch(
        "SELECT issuer_key_id, number, this_update, next_update, der FROM ca_lists ORDER BY issuer_key_id"
    )
    return [_list(row) for row in rows]


async def newest(tx: Transaction, issuer_key_id: bytes) -> StoredList | None:
    """The newest list of one authority."""
    row = await tx.fetchrow(
        "SELECT issuer_key_id, number, this_update, next_update, der FROM ca_lists WHERE issuer_key_id = $1",
        issuer_key_id.hex(),
    )
    return _list(row) if row else None


async def unlisted(tx: Transaction, issuer_key_id: bytes, number: int) -> bool:
    """Whether something was taken back that the list `number` of this authority does not name."""
    row = await tx.fetchrow(
        "SELECT listed FROM ca_revoked WHERE issuer_key_id = $1 AND listed > $2 ORDER BY listed DESC LIMIT 1",
        issuer_key_id.hex(),
        number,
    )
    return row is not None


async def has_expired(tx: Transaction, issuer_key_id: bytes, now: datetime) -> bool:
    """Whether an entry of this authority has outlived its certificate for everybody."""
    row = await tx.fetchrow(
        "SELECT serial FROM ca_revoked WHERE issuer_key_id = $1 AND not_after <= $2 ORDER BY serial LIMIT 1",
        issuer_key_id.hex(),
        micros(now - GRACE),
    )
    return row is not None


async def claim(
    tx: Transaction, issuer_key_id: bytes, *, above: int, number: int, most: int, now: datetime
) -> Sequence[Entry]:
    """What the list `number`, which follows the list `above`, is to name: at most `most`, in the order of serials.

    When there are more it is those that are valid longest. A crash before the list is kept leaves the rows above the
    newest number, and so they are found again.
    """
    issuer = issuer_key_id.hex()
    await tx.execute("DELETE FROM ca_revoked WHERE issuer_key_id = $1 AND not_after <= $2", issuer, micros(now - GRACE))
    await tx.execute(
        "UPDATE ca_revoked SET listed = $3 WHERE issuer_key_id = $1 AND listed > $2", issuer, above, number
    )
    rows = await tx.fetch(
        "SELECT serial, revoked_at FROM ca_revoked WHERE issuer_key_id = $1 AND listed <= $2"
        " ORDER BY not_after DESC, serial LIMIT $3",
        issuer,
        number,
        most,
    )
    entries = [Entry(int(row["serial"], 16), instant(row["revoked_at"])) for row in rows]
    return sorted(entries, key=lambda each: each.serial)


async def keep(tx: Transaction, one: StoredList) -> bool:
    """Put a list in the place of the one before it; False when that has a higher number."""
    changed = await tx.execute(
        "INSERT INTO ca_lists (issuer_key_id, number, der, this_update, next_update) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (issuer_key_id) DO UPDATE SET number = excluded.number, der = excluded.der,"
        " this_update = excluded.this_update, next_update = excluded.next_update"
        " WHERE ca_lists.number < excluded.number",
        one.issuer_key_id.hex(),
        one.number,
        one.der,
        micros(one.this_update),
        micros(one.next_update),
    )
    return changed == 1


async def forget_finished(tx: Transaction, now: datetime) -> None:
    """Drop the lists of authorities that are revoked or retired, and what they named and has expired."""
    finished = "SELECT key_id FROM ca_authorities WHERE state IN ('revoked', 'retired')"
    await tx.execute(f"DELETE FROM ca_lists WHERE issuer_key_id IN ({finished})")
    await tx.execute(
        f"DELETE FROM ca_revoked WHERE not_after <= $1 AND issuer_key_id IN ({finished})", micros(now - GRACE)
    )


def _list(row: Row) -> StoredList:
    return StoredList(
        issuer_key_id=bytes.fromhex(row["issuer_key_id"]),
        number=row["number"],
        this_update=instant(row["this_update"]),
        next_update=instant(row["next_update"]),
        der=row["der"],
    )
