"""Admitted nodes, and those that were sent away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from attestor import selector
from attestor.selector import Selectors
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction

_COLUMNS = "id, state, admission, method, selectors, admitted_at, seen_at, live_counter"


DIRECT = "direct"
"""The method of what is no node, and stands for one: see `stand_in`."""


class NodeState(StrEnum):
    """`evicted` may come back with a new token, `banned` may not."""

    ADMITTED = "admitted"
    EVICTED = "evicted"
    BANNED = "banned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine the server verified; `selectors` are what it verified, `admission` names this attestation of it."""

    id: str
    state: NodeState
    admission: str
    method: str
    selectors: Selectors
    admitted_at: datetime
    seen_at: datetime
    live_counter: int

    @property
    def is_stand_in(self) -> bool:
        """Whether there is no node agent behind it."""
        return self.method == DIRECT


async def get(tx: Transaction, node_id: str) -> Node | None:
    """The node of that id."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM nodes WHERE id = $1", node_id)
    return _node(row) if row else None


async def everything(tx: Transaction) -> Sequence[Node]:
    """Every node there ever was."""
    return [_node(row) for row in await tx.fetch(f"SELECT {_COLUMNS} FROM nodes ORDER BY id")]


async def stand_in(tx: Transaction, place: tuple[str, str], selectors: Selectors, now: datetime) -> Node:
    """What stands for a node where there is no node agent: one for each platform, under a name no node can have."""
    name = "~" + "/".join(place)
    await tx.execute(
        "INSERT INTO nodes (id, state, admission, method, selectors, admitted_at, seen_at, live_counter)"
        " VALUES ($1, 'admitted', 'none', $2, $3, $4, $4, 0)"
        " ON CONFLICT (id) DO UPDATE SET selectors = $3, seen_at = $4,"
        " state = CASE WHEN nodes.state = 'evicted' THEN 'admitted' ELSE nodes.state END",
        name,
        DIRECT,
        json.dumps(selector.texts(selectors)),
        micros(now),
    )
    found = await get(tx, name)
    assert found is not None, "it was just put there"
    return found


async def admitted(tx: Transaction) -> Sequence[Node]:
    """Those that may speak."""
    rows = await tx.fetch(f"SELECT {_COLUMNS} FROM nodes WHERE state = 'admitted' AND method <> $1 ORDER BY id", DIRECT)
    return [_node(row) for row in rows]


async def admit(tx: Transaction, node: Node) -> bool:
    """Add the node, or begin a new admission of it; False when it is banned, or known by another method.

    A name that one method gives must not be another's to take, so only an eviction lets a node change its method. Its
    instances live on: the machine is the same, and its next live set says which of them are still there. Live sets are
    counted anew, from those instances on: who had the machine before can't have used all the numbers up.
    """
    facts = (
        node.id,
        node.admission,
        node.method,
        json.dumps(selector.texts(node.selectors)),
        micros(node.admitted_at),
    )
    changed = await tx.execute(
        "INSERT INTO nodes (id, state, admission, method, selectors, admitted_at, seen_at, live_counter)"
        " VALUES ($1, 'admitted', $2, $3, $4, $5, $5, 0)"
        " ON CONFLICT (id) DO UPDATE SET state = 'admitted', admission = $2, method = $3, selectors = $4,"
        " admitted_at = $5, seen_at = $5, live_counter = 0"
        " WHERE nodes.state = 'evicted' OR (nodes.state = 'admitted' AND nodes.method = $3)",
        *facts,
    )
    return changed == 1


async def touch(tx: Transaction, node: Node) -> bool:
    """Begin a unit that gives something to the node; False unless it is admitted, and by this admission.

    The row is ours until the commit: whoever sends the node away waits, and then sees what was given (traps 6).
    """
    changed = await tx.execute(
        "UPDATE nodes SET live_counter = live_counter WHERE id = $1 AND state = 'admitted' AND admission = $2",
        node.id,
        node.admission,
    )
    return changed == 1


async def unheard(tx: Transaction, node: Node) -> bool:
    """Whether nobody has heard of the node since it was looked up; if so nobody will before the commit."""
    changed = await tx.execute(
        "UPDATE nodes SET seen_at = $2 WHERE id = $1 AND seen_at = $2 AND admission = $3",
        node.id,
        micros(node.seen_at),
        node.admission,
    )
    return changed == 1


async def send_away(tx: Transaction, node_id: str, state: NodeState) -> bool:
    """Evict or ban; a banned node is not evicted. False when nothing changed."""
    changed = await tx.execute(
        "UPDATE nodes SET state = $2 WHERE id = $1 AND state <> 'banned' AND state <> $2", node_id, str(state)
    )
    return changed == 1


async def lift_ban(tx: Transaction, node_id: str) -> bool:
    """Let a banned node prove itself again; until it does it is evicted. False when it was not banned."""
    return await tx.execute("UPDATE nodes SET state = 'evicted' WHERE id = $1 AND state = 'banned'", node_id) == 1


async def seen(tx: Transaction, node: Node, counter: int, now: datetime) -> bool:
    """Note a report; False when a newer live set was applied already, or the node was sent away or admitted anew."""
    changed = await tx.execute(
        "UPDATE nodes SET live_counter = $2, seen_at = $3"
        " WHERE id = $1 AND live_counter <= $2 AND state = 'admitted' AND admission = $4",
        node.id,
        counter,
        micros(now),
        node.admission,
    )
    return changed == 1


def _node(row: Row) -> Node:
    return Node(
        id=row["id"],
        state=NodeState(row["state"]),
        admission=row["admission"],
        method=row["method"],
        selectors=selector.parse_all(json.loads(row["selectors"])),
        admitted_at=instant(row["admitted_at"]),
        seen_at=instant(row["seen_at"]),
        live_counter=row["live_counter"],
    )
