"""Authorities, their states, and the intents to make their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ca.errors import Stale
from ca.profiles.prepared import Kind
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction


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

    `server` is the one that holds the key. `kind` is root, issuing, jwt or wit; what signs tokens has no certificate.
    `issuer_key_id` is the root of an issuing authority, ours or one kept elsewhere. Nothing it signed lives longer than
    `signed_until`. Peers have been told of it since `published_at`; `forced` means that an operator waits for it.
    """

    server: str
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
    published_at: datetime
    forced: bool = False

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


_COLUMNS = (
    "key_id, kind, state, key_name, issuer_key_id, public_key, certificate, not_before, not_after, signed_until,"
    " server, published_at, forced"
)


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
        f"INSERT INTO ca_authorities ({_COLUMNS}, changed_at, published_in) VALUES"
        " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, (SELECT generation FROM ca_bundle))",
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
        authority.server,
        micros(authority.published_at),
        int(authority.forced),
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


async def force(tx: Transaction, key_id: bytes) -> None:
    """Note that an operator waits for a prepared one. Raises Stale when it is no longer prepared."""
    if not await tx.execute(
        "UPDATE ca_authorities SET forced = 1 WHERE key_id = $1 AND state = 'prepared'", key_id.hex()
    ):
        raise Stale(f"the authority `{key_id.hex()}` is no longer `prepared`")


async def intend_key(tx: Transaction, server: str, key_name: str) -> None:
    """Note that a server is about to make a key of this name."""
    await tx.execute("INSERT INTO ca_key_intents (key_name, server) VALUES ($1, $2)", key_name, server)


async def intended_keys(tx: Transaction, server: str) -> Sequence[str]:
    """Keys that the server may have made and that belong to no authority."""
    rows = await tx.fetch("SELECT key_name FROM ca_key_intents WHERE server = $1 ORDER BY key_name", server)
    return [row["key_name"] for row in rows]


async def forget_intent(tx: Transaction, key_name: str) -> None:
    """The key of this name is known to be gone."""
    await tx.execute("DELETE FROM ca_key_intents WHERE key_name = $1", key_name)


async def keys_to_destroy(tx: Transaction, server: str) -> Sequence[str]:
    """Names of the server's keys whose authorities are finished and that are not known to be gone."""
    rows = await tx.fetch(
        "SELECT key_name FROM ca_authorities WHERE state IN ('revoked', 'retired') AND key_destroyed_at IS NULL"
        " AND server = $1 ORDER BY key_name",
        server,
    )
    return [row["key_name"] for row in rows]


async def key_destroyed(tx: Transaction, key_name: str, now: datetime) -> None:
    """Note that a key is gone."""
    await tx.execute("UPDATE ca_authorities SET key_destroyed_at = $1 WHERE key_name = $2", micros(now), key_name)


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
        server=row["server"],
        published_at=instant(row["published_at"]),
        forced=bool(row["forced"]),
    )
