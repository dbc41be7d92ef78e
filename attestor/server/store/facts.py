"""What was found out about each instance when it last got a credential."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from attestor.instance import Strength
from attestor.selector import Selectors, parse_all, texts
from attestor.wire.attestation import Attestation
from ca.runtime.database import Row, Transaction
from ca.runtime.sql import pieces, tuples


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A live instance as it was last attested; `node` is the name of the node it lives on."""

    instance: str
    node: str
    strength: Strength
    selectors: Selectors
    ancestors: tuple[str, ...]


async def put(tx: Transaction, attestations: Iterable[Attestation]) -> None:
    """Remember what instances were found to be, each by its last attestation here; writes only what is new."""
    last = {one.instance: one for one in attestations}
    for piece in pieces([last[instance] for instance in sorted(last)]):
        rows = [(one.instance, json.dumps(texts(one.selectors)), json.dumps(list(one.ancestors))) for one in piece]
        await tx.execute(
            f"INSERT INTO instance_facts (instance, selectors, ancestors) VALUES {tuples(len(rows), 3)}"
            " ON CONFLICT (instance) DO UPDATE SET selectors = excluded.selectors, ancestors = excluded.ancestors"
            " WHERE instance_facts.selectors <> excluded.selectors OR instance_facts.ancestors <> excluded.ancestors",
            *chain.from_iterable(rows),
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
