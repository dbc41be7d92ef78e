"""What was signed. Append only: nothing of ours changes or removes a row, and it is durable before the signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from ca.profiles.prepared import Kind, Prepared
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.runtime.sql import pieces, tuples


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One thing that was signed, or was about to be."""

    issuer_key_id: bytes
    serial: int
    kind: Kind
    spiffe_id: str
    instance: str | None
    not_after: datetime


_COLUMNS = "issuer_key_id, serial, kind, spiffe_id, instance, not_after"
_NOT_REVOKED = (
    "NOT EXISTS (SELECT 1 FROM ca_revoked r"
    " WHERE r.issuer_key_id = ca_issued.issuer_key_id AND r.serial = ca_issued.serial)"
)
_AT_ONCE = 500
"""Names in one statement."""


async def record(tx: Transaction, batch: Sequence[Prepared]) -> None:
    """Note what is about to be signed."""
    for piece in pieces(batch):
        rows = [
            (
                prepared.issuer_key_id.hex(),
                f"{prepared.serial:040x}",
                str(prepared.kind),
                str(prepared.subject),
                prepared.instance,
                micros(prepared.not_after),
            )
            for prepared in piece
        ]
        await tx.execute(
            f"INSERT INTO ca_issued ({_COLUMNS}) VALUES {tuples(len(rows), 6)}", *chain.from_iterable(rows)
        )


async def issued_to(tx: Transaction, instance: str, now: datetime) -> Sequence[Issued]:
    """What was signed for an instance and has not expired at `now`: what its end has to revoke."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM ca_issued"
        " WHERE instance = $1 AND not_after > $2 ORDER BY not_after, issuer_key_id, serial",
        instance,
        micros(now),
    )
    return [_issued(row) for row in rows]


async def leaf(tx: Transaction, issuer_key_id: bytes, serial: int) -> Issued | None:
    """The leaf of that number, expired or not."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM ca_issued WHERE issuer_key_id = $1 AND serial = $2 AND kind = 'leaf'",
        issuer_key_id.hex(),
        f"{serial:040x}",
    )
    return _issued(row) if row else None


async def leaves_of(tx: Transaction, instances: Sequence[str], now: datetime) -> Sequence[Issued]:
    """The leaves of these instances that neither have expired at `now` nor were taken back."""
    found: list[Issued] = []
    for first in range(0, len(instances), _AT_ONCE):
        piece = instances[first : first + _AT_ONCE]
        places = ", ".join(f"${n}" for n in range(2, len(piece) + 2))
        rows = await tx.fetch(
            f"SELECT {_COLUMNS} FROM ca_issued WHERE kind = 'leaf' AND not_after > $1 AND {_NOT_REVOKED}"
            f" AND instance IN ({places}) ORDER BY not_after, issuer_key_id, serial",
            micros(now),
            *piece,
        )
        found += [_issued(row) for row in rows]
    return found


async def leaves_under(tx: Transaction, spiffe_id: str, now: datetime) -> Sequence[Issued]:
    """Leaves of `spiffe_id` and of all below it, by whole segments, that neither have expired nor were taken back."""
    below = f"{spiffe_id}/"
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM ca_issued WHERE kind = 'leaf' AND not_after > $1 AND {_NOT_REVOKED}"
        " AND (spiffe_id = $2 OR substr(spiffe_id, 1, $3) = $4) ORDER BY not_after, issuer_key_id, serial",
        micros(now),
        spiffe_id,
        len(below),
        below,
    )
    return [_issued(row) for row in rows]


async def signed_by(tx: Transaction, key_id: bytes, now: datetime) -> Mapping[Kind, int]:
    """How much of what an authority signed has not expired at `now`; reads every row of it."""
    rows = await tx.fetch(
        "SELECT kind, COUNT(*) AS signed FROM ca_issued WHERE issuer_key_id = $1 AND not_after > $2"
        " GROUP BY kind ORDER BY kind",
        key_id.hex(),
        micros(now),
    )
    return {Kind(row["kind"]): row["signed"] for row in rows}


def _issued(row: Row) -> Issued:
    return Issued(
        issuer_key_id=bytes.fromhex(row["issuer_key_id"]),
        serial=int(row["serial"], 16),
        kind=Kind(row["kind"]),
        spiffe_id=row["spiffe_id"],
        instance=row["instance"],
        not_after=instant(row["not_after"]),
    )
