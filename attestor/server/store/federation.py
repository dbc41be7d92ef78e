"""The newest bundle of each foreign trust domain, and when its endpoint is asked next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.spiffe.id import TrustDomain

_COLUMNS = "trust_domain, source, document, origin, fetched_at, due_at, failures, trouble, version"


class Source(StrEnum):
    """Who gave the bundle."""

    ENDPOINT = "endpoint"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDomain:
    """One row; `fetched_at` is the last time its endpoint answered well."""

    trust_domain: TrustDomain
    source: Source
    document: str | None
    origin: str
    fetched_at: datetime | None
    due_at: datetime
    failures: int = 0
    trouble: str = ""
    version: int = 0


async def everything(tx: Transaction) -> Sequence[StoredDomain]:
    """All of them, by name."""
    return [_stored(row) for row in await tx.fetch(f"SELECT {_COLUMNS} FROM federated_domains ORDER BY trust_domain")]


async def get(tx: Transaction, trust_domain: TrustDomain) -> StoredDomain | None:
    """One."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM federated_domains WHERE trust_domain = $1", trust_domain.name)
    return _stored(row) if row else None


async def insert(tx: Transaction, domain: StoredDomain) -> bool:
    """Add one; False when it is there."""
    done = await tx.execute(
        f"INSERT INTO federated_domains ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (trust_domain) DO NOTHING",
        domain.trust_domain.name,
        str(domain.source),
        domain.document,
        domain.origin,
        None if domain.fetched_at is None else micros(domain.fetched_at),
        micros(domain.due_at),
        domain.failures,
        domain.trouble,
        domain.version,
    )
    return done == 1


async def replace(tx: Transaction, domain: StoredDomain) -> bool:
    """Write what `domain` says, and the next version; False when the row has another version than it by now."""
    done = await tx.execute(
        "UPDATE federated_domains SET source = $2, document = $3, origin = $4, fetched_at = $5, due_at = $6,"
        " failures = $7, trouble = $8, version = version + 1 WHERE trust_domain = $1 AND version = $9",
        domain.trust_domain.name,
        str(domain.source),
        domain.document,
        domain.origin,
        None if domain.fetched_at is None else micros(domain.fetched_at),
        micros(domain.due_at),
        domain.failures,
        domain.trouble,
        domain.version,
    )
    return done == 1


async def delete(tx: Transaction, trust_domain: TrustDomain) -> bool:
    """Forget one; False when there is none."""
    return await tx.execute("DELETE FROM federated_domains WHERE trust_domain = $1", trust_domain.name) == 1


def _stored(row: Row) -> StoredDomain:
    return StoredDomain(
        trust_domain=TrustDomain.parse(row["trust_domain"]),
        source=Source(row["source"]),
        document=row["document"],
        origin=row["origin"],
        fetched_at=None if row["fetched_at"] is None else instant(row["fetched_at"]),
        due_at=instant(row["due_at"]),
        failures=row["failures"],
        trouble=row["trouble"],
        version=row["version"],
    )
