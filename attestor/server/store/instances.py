"""Instances: where they live, what they were given, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import LiteralString

from attestor.instance import Binding, State, Strength
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.runtime.sql import pieces, tuples
from ca.spiffe.id import SpiffeId

KEPT = timedelta(days=7)
"""How long an ended instance is remembered; afterwards it is unknown, which gives it just as little."""

_AT_ONCE = 500
"""Ids in one statement: a hostile node names many, and each statement of its own would hold up everybody's store."""

_COLUMNS = "id, node, state, reason, strength, bound, since, began_at, changed_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One attested process, container or pod, as far as the server knows."""

    id: str
    node: str
    state: State
    reason: str
    strength: Strength
    bound: bool
    since: int
    began_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An identity an instance was given, by which rule."""

    id: SpiffeId
    rule: str
    bind: Binding


async def get(tx: Transaction, instance_id: str) -> Instance | None:
    """The instance of that id."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM instances WHERE id = $1", instance_id)
    return _instance(row) if row else None


async def among(tx: Transaction, instance_ids: Iterable[str]) -> Mapping[str, Instance]:
    """Those of these ids that are known."""
    found: dict[str, Instance] = {}
    for piece, names in _pieces(sorted(instance_ids)):
        rows = await tx.fetch(f"SELECT {_COLUMNS} FROM instances WHERE id IN ({names}) ORDER BY id", *piece)
        found |= {row["id"]: _instance(row) for row in rows}
    return found


async def nodes_of(tx: Transaction, instance_ids: Iterable[str]) -> Mapping[str, str]:
    """Which of these are known, whether they live or have ended, and of which node each is."""
    found: dict[str, str] = {}
    for piece, places in _pieces(sorted(instance_ids)):
        rows = await tx.fetch(f"SELECT id, node FROM instances WHERE id IN ({places}) ORDER BY id", *piece)
        found |= {row["id"]: row["node"] for row in rows}
    return found


async def of_node(tx: Transaction, node: str) -> Sequence[Instance]:
    """Those of a node that have not ended."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM instances WHERE node = $1 AND state IN ('live', 'unobserved') ORDER BY id", node
    )
    return [_instance(row) for row in rows]


async def all_of_node(tx: Transaction, node: str) -> Sequence[Instance]:
    """Those of a node, also those that have ended and are remembered."""
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM instances WHERE node = $1 ORDER BY id", node)
    return [_instance(row) for row in rows]


async def called(tx: Transaction, spiffe_id: str) -> frozenset[str]:
    """The ids of those that were given `spiffe_id` or one below it, by whole segments, and have not ended."""
    below = f"{spiffe_id}/"
    rows = await tx.fetch(
        "SELECT DISTINCT g.instance FROM instance_identities g JOIN instances i ON i.id = g.instance"
        " WHERE i.state <> 'ended' AND (g.spiffe_id = $1 OR substr(g.spiffe_id, 1, $2) = $3) ORDER BY g.instance",
        spiffe_id,
        len(below),
        below,
    )
    return frozenset(row["instance"] for row in rows)


async def newest_of_node(tx: Transaction, node: str) -> int:
    """The highest number of a live set that was to name one of them first; of those that have not ended, else 0."""
    rows = await tx.fetch(
        "SELECT COALESCE(MAX(since), 0) AS newest FROM instances WHERE node = $1 AND state <> 'ended'", node
    )
    newest: int = rows[0]["newest"]
    return newest


async def ended_of_node(tx: Transaction, node: str) -> frozenset[str]:
    """The ids of those of a node that have ended and are remembered."""
    rows = await tx.fetch("SELECT id FROM instances WHERE node = $1 AND state = 'ended' ORDER BY id", node)
    return frozenset(row["id"] for row in rows)


async def page(tx: Transaction, after: str, limit: int) -> Sequence[Instance]:
    """Those that come after the id `after`, in the order of their ids."""
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM instances WHERE id > $1 ORDER BY id LIMIT $2", after, limit)
    return [_instance(row) for row in rows]


async def counts(tx: Transaction) -> Mapping[str, int]:
    """How many have not ended, by node."""
    rows = await tx.fetch(
        "SELECT node, COUNT(*) AS number FROM instances WHERE state <> 'ended' GROUP BY node ORDER BY node"
    )
    return {row["node"]: row["number"] for row in rows}


async def insert(tx: Transaction, instances: Iterable[Instance]) -> int:
    """Add those of whose id there is none yet; answers how many."""
    added = 0
    for piece in pieces(sorted(instances, key=lambda one: one.id)):
        rows: list[tuple[str | int, ...]] = [
            (
                one.id,
                one.node,
                str(one.state),
                one.reason,
                str(one.strength),
                int(one.bound),
                one.since,
                micros(one.began_at),
                micros(one.changed_at),
            )
            for one in piece
        ]
        added += await tx.execute(
            f"INSERT INTO instances ({_COLUMNS}) VALUES {tuples(len(rows), 9)} ON CONFLICT (id) DO NOTHING",
            *chain.from_iterable(rows),
        )
    return added


async def attested(tx: Transaction, instance_ids: Iterable[str], strength: Strength, *, bound: bool) -> int:
    """Note a newer attestation of those that are live; what is bound stays bound. Answers how many they are."""
    changed = 0
    for piece in pieces(sorted(instance_ids)):
        names = ", ".join(f"${n}" for n in range(3, len(piece) + 3))
        changed += await tx.execute(
            "UPDATE instances SET strength = $1, bound = CASE WHEN $2 = 1 THEN 1 ELSE bound END"
            f" WHERE state = 'live' AND id IN ({names})",
            str(strength),
            int(bound),
            *piece,
        )
    return changed


async def bind(tx: Transaction, instance_id: str) -> bool:
    """Its leaves are revoked when it ends. False when it has ended or is not known."""
    changed = await tx.execute("UPDATE instances SET bound = 1 WHERE id = $1 AND state <> 'ended'", instance_id)
    return changed == 1


async def bound_among(tx: Transaction, instance_ids: Sequence[str]) -> Sequence[str]:
    """Which of these are bound: asked after they were moved, so that no bind slips in between."""
    found: list[str] = []
    for piece, places in _pieces(instance_ids):
        rows = await tx.fetch(f"SELECT id FROM instances WHERE bound = 1 AND id IN ({places}) ORDER BY id", *piece)
        found += [row["id"] for row in rows]
    return found


async def hold(tx: Transaction, instance_ids: Sequence[str]) -> bool:
    """Keep these from ending before this unit does; False when one has ended or is not known."""
    held = 0
    for piece, places in _pieces(instance_ids):
        held += await tx.execute(
            f"UPDATE instances SET since = since WHERE state <> 'ended' AND id IN ({places})", *piece
        )
    return held == len(instance_ids)


async def move(tx: Transaction, found: Instance, state: State, reason: str, now: datetime) -> bool:
    """Change its state; False when it has changed since it was found. `ended` has no way out."""
    assert found.state is not State.ENDED, "ended is final"
    changed = await tx.execute(
        "UPDATE instances SET state = $3, reason = $4, changed_at = $5"
        " WHERE id = $1 AND state = $2 AND changed_at = $6",
        found.id,
        str(found.state),
        str(state),
        reason,
        micros(now),
        micros(found.changed_at),
    )
    return changed == 1


async def finish(tx: Transaction, instance_id: str, reason: str, now: datetime) -> bool:
    """End it, whatever it was since it was looked up; False when it has ended or is not known."""
    changed = await tx.execute(
        "UPDATE instances SET state = 'ended', reason = $2, changed_at = $3 WHERE id = $1 AND state <> 'ended'",
        instance_id,
        reason,
        micros(now),
    )
    return changed == 1


async def give(tx: Transaction, given: Iterable[tuple[str, Given]]) -> None:
    """Remember which identities instances, by their ids, were given; writes only what is new."""
    last = {(instance, str(one.id)): (one.rule, str(one.bind)) for instance, one in given}
    for piece in pieces(sorted(last)):
        await tx.execute(
            f"INSERT INTO instance_identities (instance, spiffe_id, rule, bind) VALUES {tuples(len(piece), 4)}"
            " ON CONFLICT (instance, spiffe_id) DO UPDATE SET rule = excluded.rule, bind = excluded.bind"
            " WHERE instance_identities.rule <> excluded.rule OR instance_identities.bind <> excluded.bind",
            *chain.from_iterable((*key, *last[key]) for key in piece),
        )


async def given_to(tx: Transaction, instance_id: str) -> Sequence[Given]:
    """Which identities it was given."""
    rows = await tx.fetch(
        "SELECT spiffe_id, rule, bind FROM instance_identities WHERE instance = $1 ORDER BY spiffe_id", instance_id
    )
    return [Given(id=SpiffeId.parse(row["spiffe_id"]), rule=row["rule"], bind=Binding(row["bind"])) for row in rows]


async def unobserved(tx: Transaction) -> Sequence[Instance]:
    """Those that nobody observes."""
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM instances WHERE state = 'unobserved' ORDER BY id")
    return [_instance(row) for row in rows]


async def prune(tx: Transaction, now: datetime) -> int:
    """Forget those that ended long ago."""
    before = micros(now - KEPT)
    for table in ("instance_identities", "instance_facts"):
        await tx.execute(
            f"DELETE FROM {table} WHERE instance IN"
            " (SELECT id FROM instances WHERE state = 'ended' AND changed_at < $1)",
            before,
        )
    return await tx.execute("DELETE FROM instances WHERE state = 'ended' AND changed_at < $1", before)


def _pieces(names: Sequence[str]) -> Iterator[tuple[Sequence[str], LiteralString]]:
    """A few at a time, each with its places in a statement."""
    for first in range(0, len(names), _AT_ONCE):
        piece = names[first : first + _AT_ONCE]
        yield piece, ", ".join(f"${n}" for n in range(1, len(piece) + 1))


def _instance(row: Row) -> Instance:
    return Instance(
        id=row["id"],
        node=row["node"],
        state=State(row["state"]),
        reason=row["reason"],
        strength=Strength(row["strength"]),
        bound=bool(row["bound"]),
        since=row["since"],
        began_at=instant(row["began_at"]),
        changed_at=instant(row["changed_at"]),
    )
