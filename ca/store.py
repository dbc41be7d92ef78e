"""The authority's tables: authorities and their states, what was issued, the bundle's number.

Every function takes a `Transaction` and is called inside a unit; no transaction begins here. `ca_issued` is append
only: no statement of ours changes or removes a row of it, and the row is durable before the signature is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ca.errors import Conflict, Stale
from ca.profiles.prepared import Kind, Prepared
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.spiffe.id import TrustDomain


class State(StrEnum):
    """Where an authority is in its life; `ca.rotation` has the table of its moves."""

    PREPARED = "prepared"
    ACTIVE = "active"
    OLD = "old"
    TAINTED = "tainted"
    REVOKED = "revoked"
    RETIRED = "retired"

    @property
    def trusted(self) -> bool:
        """Whether peers are told to believe it: a tainted one still, so that they can get away from it."""
        return self not in {State.REVOKED, State.RETIRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAuthority:
    """One key and what it may do.

    `kind` is root, issuing or jwt; a JWT authority has no certificate. `issuer_key_id` is the root of an issuing
    authority. Nothing it signed lives longer than `signed_until`.
    """

    key_id: bytes
    kind: Kind
    state: State
    key_name: str
    issuer_key_id: bytes | None
    public_key: bytes
    certificate: bytes | None
    not_before: datetime
    not_after: datetime
    signed_until: datetime

    @property
    def in_bundle(self) -> bool:
        """Whether peers find it in the trust domain's bundle; issuing authorities travel in chains instead."""
        return self.state.trusted and self.kind is not Kind.ISSUING


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One authority's change of state."""

    key_id: bytes
    before: State
    after: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One thing that was signed, or was about to be."""

    issuer_key_id: bytes
    serial: int
    kind: Kind
    spiffe_id: str
    instance: str | None
    not_after: datetime


_COLUMNS = "key_id, kind, state, key_name, issuer_key_id, public_key, certificate, not_before, not_after, signed_until"


async def trusted(tx: Transaction) -> Sequence[StoredAuthority]:
    """Every authority that is neither revoked nor retired, the oldest first."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM ca_authorities WHERE state NOT IN ('revoked', 'retired') ORDER BY not_before, key_id"
    )
    return [_authority(row) for row in rows]


async def everything(tx: Transaction) -> Sequence[StoredAuthority]:
    """Every authority there ever was, the oldest first."""
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM ca_authorities ORDER BY not_before, key_id")
    return [_authority(row) for row in rows]


async def insert(tx: Transaction, authority: StoredAuthority, now: datetime) -> None:
    """Add an authority and forget the intent to make its key."""
    await tx.execute("DELETE FROM ca_key_intents WHERE key_name = $1", authority.key_name)
    await tx.execute(
        f"INSERT INTO ca_authorities ({_COLUMNS}, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        authority.key_id.hex(),
        str(authority.kind),
        str(authority.state),
        authority.key_name,
        None if authority.issuer_key_id is None else authority.issuer_key_id.hex(),
        authority.public_key,
        authority.certificate,
        micros(authority.not_before),
        micros(authority.not_after),
        micros(authority.signed_until),
        micros(now),
    )


async def move(tx: Transaction, step: Move, now: datetime) -> None:
    """Change a state. Raises Stale when the authority was not in the state it was believed to be in."""
    changed = await tx.execute(
        "UPDATE ca_authorities SET state = $1, changed_at = $2 WHERE key_id = $3 AND state = $4",
        str(step.after),
        micros(now),
        step.key_id.hex(),
        str(step.before),
    )
    if not changed:
        raise Stale(f"the authority `{step.key_id.hex()}` is no longer `{step.before}`")


async def fence(tx: Transaction, key_id: bytes, until: datetime) -> None:
    """Begin a unit that lets `key_id` sign something until `until`. Raises Stale unless it is active."""
    changed = await tx.execute(
        "UPDATE ca_authorities SET signed_until = CASE WHEN signed_until < $1 THEN $1 ELSE signed_until END"
        " WHERE key_id = $2 AND state = 'active'",
        micros(until),
        key_id.hex(),
    )
    if not changed:
        raise Stale(f"the authority `{key_id.hex()}` is no longer active: prepare again under its successor")


async def record(tx: Transaction, batch: Sequence[Prepared]) -> None:
    """Note what is about to be signed."""
    for prepared in batch:
        await tx.execute(
            "INSERT INTO ca_issued (issuer_key_id, serial, kind, spiffe_id, instance, not_after)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            prepared.issuer_key_id.hex(),
            f"{prepared.serial:040x}",
            str(prepared.kind),
            str(prepared.subject),
            prepared.instance,
            micros(prepared.not_after),
        )


async def issued_to(tx: Transaction, instance: str, now: datetime) -> Sequence[Issued]:
    """What was signed for an instance and has not expired at `now`: what its end has to revoke."""
    rows = await tx.fetch(
        "SELECT issuer_key_id, serial, kind, spiffe_id, instance, not_after FROM ca_issued"
        " WHERE instance = $1 AND not_after > $2 ORDER BY not_after, issuer_key_id, serial",
        instance,
        micros(now),
    )
    return [_issued(row) for row in rows]


async def intend_key(tx: Transaction, key_name: str) -> None:
    """Note that a key of this name is about to be made."""
    await tx.execute("INSERT INTO ca_key_intents (key_name) VALUES ($1)", key_name)


async def intended_keys(tx: Transaction) -> Sequence[str]:
    """Keys that may have been made and belong to no authority."""
    return [row["key_name"] for row in await tx.fetch("SELECT key_name FROM ca_key_intents ORDER BY key_name")]


async def forget_intent(tx: Transaction, key_name: str) -> None:
    """The key of this name is known to be gone."""
    await tx.execute("DELETE FROM ca_key_intents WHERE key_name = $1", key_name)


async def keys_to_destroy(tx: Transaction) -> Sequence[str]:
    """Names of the keys of finished authorities that are not known to be gone."""
    rows = await tx.fetch(
        "SELECT key_name FROM ca_authorities WHERE state IN ('revoked', 'retired') AND key_destroyed_at IS NULL"
        " ORDER BY key_name"
    )
    return [row["key_name"] for row in rows]


async def key_destroyed(tx: Transaction, key_name: str, now: datetime) -> None:
    """Note that a key is gone."""
    await tx.execute("UPDATE ca_authorities SET key_destroyed_at = $1 WHERE key_name = $2", micros(now), key_name)


async def claim(tx: Transaction, trust_domain: TrustDomain) -> None:
    """Make this the store of `trust_domain`. Raises Conflict when it is another's."""
    row = await tx.fetchrow("SELECT trust_domain FROM ca_bundle ORDER BY trust_domain")
    if row is None:
        await tx.execute(
            "INSERT INTO ca_bundle (trust_domain, sequence, members) VALUES ($1, 0, '')", trust_domain.name
        )
    elif row["trust_domain"] != trust_domain.name:
        raise Conflict(f"this store belongs to the trust domain `{row['trust_domain']}`, not to `{trust_domain}`")


async def sequence(tx: Transaction) -> int:
    """The number of the bundle."""
    row = await tx.fetchrow("SELECT sequence FROM ca_bundle ORDER BY trust_domain")
    assert row is not None, "claim comes first"
    number: int = row["sequence"]
    return number


async def raise_sequence(tx: Transaction, now: datetime) -> None:
    """Raise the number if the bundle's members are others than when it was last raised.

    It never falls below the seconds since 1970, so that a store that was lost or restored does not go back (TB-2).
    """
    row = await tx.fetchrow("SELECT sequence, members FROM ca_bundle ORDER BY trust_domain")
    assert row is not None, "claim comes first"
    members = " ".join(sorted(each.key_id.hex() for each in await trusted(tx) if each.in_bundle))
    if members == row["members"]:
        return
    changed = await tx.execute(
        "UPDATE ca_bundle SET sequence = $1, members = $2 WHERE sequence = $3",
        max(row["sequence"] + 1, micros(now) // 1_000_000),
        members,
        row["sequence"],
    )
    if not changed:
        raise Stale("somebody else changed the bundle")


def _authority(row: Row) -> StoredAuthority:
    issuer = row["issuer_key_id"]
    return StoredAuthority(
        key_id=bytes.fromhex(row["key_id"]),
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        key_name=row["key_name"],
        issuer_key_id=None if issuer is None else bytes.fromhex(issuer),
        public_key=row["public_key"],
        certificate=row["certificate"],
        not_before=instant(row["not_before"]),
        not_after=instant(row["not_after"]),
        signed_until=instant(row["signed_until"]),
    )


def _issued(row: Row) -> Issued:
    return Issued(
        issuer_key_id=bytes.fromhex(row["issuer_key_id"]),
        serial=int(row["serial"], 16),
        kind=Kind(row["kind"]),
        spiffe_id=row["spiffe_id"],
        instance=row["instance"],
        not_after=instant(row["not_after"]),
    )
