"""The trust domain a store belongs to, the number of its bundle, and the number of the last change of an authority."""

from __future__ import annotations

from datetime import datetime

from ca.errors import Conflict, Stale
from ca.runtime.clock import micros
from ca.runtime.database import Transaction
from ca.spiffe.id import TrustDomain
from ca.store.anchors import anchors
from ca.store.authorities import trusted


async def claim(tx: Transaction, trust_domain: TrustDomain) -> None:
    """Make this the store of `trust_domain`. Raises Conflict when it is another's."""
    row = await tx.fetchrow("SELECT trust_domain FROM ca_bundle ORDER BY trust_domain")
    if row is None:
        await tx.execute(
            "INSERT INTO ca_bundle (trust_domain, sequence, members) VALUES ($1, 0, '')"
            " ON CONFLICT (trust_domain) DO NOTHING",
            trust_domain.name,
        )
    elif row["trust_domain"] != trust_domain.name:
        raise Conflict(f"this store belongs to the trust domain `{row['trust_domain']}`, not to `{trust_domain}`")


async def touch(tx: Transaction) -> None:
    """Begin a change of authorities: one at a time in all servers, because the row is ours until the commit."""
    changed = await tx.execute("UPDATE ca_bundle SET generation = generation + 1")
    assert changed == 1, "claim comes first"


async def generation(tx: Transaction) -> int:
    """The number of the last change of an authority by any server."""
    row = await tx.fetchrow("SELECT generation FROM ca_bundle ORDER BY trust_domain")
    assert row is not None, "claim comes first"
    number: int = row["generation"]
    return number


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
    own = {each.key_id.hex() for each in await trusted(tx) if each.in_bundle}
    members = " ".join(sorted(own | {each.fingerprint for each in await anchors(tx)}))
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
