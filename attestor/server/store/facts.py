"""What was found out about each instance when it last got a credential."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from attestor.instance import Strength
from attestor.selector import Selectors, parse_all, texts
from attestor.wire.attestation import Attestation
from ca.runtime.database import Row, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A live instance as it was last attested; `node` is the name of the node it lives on."""

    instance: str
    node: str
    strength: Strength
    selectors: Selectors
    ancestors: tuple[str, ...]


async def put(tx: Transaction, attestation: Attestation) -> None:
    """Remember what an instance was found to be; writes only what is new."""
    await tx.execute(
        "INSERT INTO instance_facts (instance, selectors, ancestors) VALUES ($1, $2, $3)"
        " ON CONFLICT (instance) DO UPDATE SET selectors = $2, ancestors = $3"
        " WHERE instance_facts.selectors <> $2 OR instance_facts.ancestors <> $3",
        attestation.instance,
        json.dumps(texts(attestation.selectors)),
        json.dumps(list(attestation.ancestors)),
    )


async def live(tx: Transaction, after: str, limit: int) -> Sequence[Known]:
    """Those that have not ended and come after the id `after`, in the order of their ids."""
    rows = await tx.fetch(
        "SELECT i.id, i.node, i.strength, f.selectors, f.ancestors FROM instances i"
        " JOIN instance_facts f ON f.instance = i.id WHERE i.state <> 'ended' AND i.id > $1 ORDER BY i.id LIMIT $2",
        after,
        limit,
    )
    return [_known(row) for row in rows]


def _known(row: Row) -> Known:
    return Known(
        instance=row["id"],
        node=row["node"],
        strength=Strength(row["strength"]),
        selectors=parse_all(json.loads(row["selectors"])),
        ancestors=tuple(json.loads(row["ancestors"])),
    )
