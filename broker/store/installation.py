"""Who this store belongs to: made once, with the store; and whether it is still the store it was.

Where the past of a store can be told from outside (`ca.runtime.past`) it is compared at each start. Another past means
that the store was restored, promoted or moved: what it remembers may be older than what was done. Then another
*incarnation* begins, so no cursor and no claim of the earlier one is believed, and every target is in *quarantine*:

    restored, promoted ▸ begin_incarnation, quarantined_at ▸ observe, reconcile ▸ adopt(target) ▸ destroy again
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime

from broker.store.values import moment_of
from ca.runtime.clock import instant, micros
from ca.runtime.database import Row, Transaction
from ca.runtime.past import Past

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The facts a store is born with.

    `id` is part of every principal's name. `name_key` makes those names unguessable. `incarnation` is one uninterrupted
    life of the store; cursors and claims of another one are not believed (traps 7, 19, 20). `quarantined_at` is since
    when targets wait for somebody to adopt them; None in the first life.
    """

    id: str
    incarnation: str
    name_key: bytes = field(repr=False)
    quarantined_at: datetime | None = None


async def settle(tx: Transaction, now: datetime, past: Past | None = None) -> Installation:
    """The installation of this store, made now if it is new; another life of it when it has not the past it had.

    Several brokers may do so at once: the new life is begun by one of them.
    """
    await tx.execute(
        "INSERT INTO installation (one, id, incarnation, name_key, made_at) VALUES (1, $1, $2, $3, $4)"
        " ON CONFLICT (one) DO NOTHING",
        _drawn(8),
        _drawn(12),
        secrets.token_hex(32),
        micros(now),
    )
    await tx.execute("INSERT INTO epoch (one, n) VALUES (1, 0) ON CONFLICT (one) DO NOTHING")
    return await read(tx) if past is None else await _compared(tx, past, now)


async def compared(tx: Transaction, past: Past, now: datetime) -> Installation:
    """As `settle` of a store that was settled, and nothing is written: another life is one for this process only.

    Raises:
        RuntimeError: it was not.
    """
    found = await read(tx)
    _, goes_on = await _goes_on(tx, past)
    return found if goes_on else replace(found, incarnation=_drawn(12), quarantined_at=now)


async def _compared(tx: Transaction, past: Past, now: datetime) -> Installation:
    history, goes_on = await _goes_on(tx, past)
    if await _take(tx, history, past.next) and not goes_on:
        return await begin_incarnation(tx, now)
    return await read(tx)


async def _goes_on(tx: Transaction, past: Past) -> tuple[str | None, bool]:
    """The name the store's past has in it, and whether it is the past that is known."""
    row = await tx.fetchrow("SELECT i.history, e.n FROM installation i JOIN epoch e ON e.one = i.one WHERE i.one = 1")
    if row is None:
        raise RuntimeError("the store was not settled")
    history: str | None = row["history"]
    return history, (history is None or history in past.names) and row["n"] >= past.reached


async def _take(tx: Transaction, before: str | None, following: str) -> bool:
    """Write the present name of the past, if it is still the one that was compared: of several brokers one does."""
    return (
        await tx.execute(
            "UPDATE installation SET history = $1 WHERE one = 1 AND COALESCE(history, '') = $2",
            following,
            before or "",
        )
        == 1
    )


async def read(tx: Transaction) -> Installation:
    """The installation of a store that was settled."""
    return _installation_of(await tx.fetchrow("SELECT * FROM installation WHERE one = 1"))


async def begin_incarnation(tx: Transaction, now: datetime) -> Installation:
    """Begin another life, after a restore or a promotion: every cursor held outside is void, no claim matches.

    Every target is in quarantine from `now` on.
    """
    await tx.execute(
        "UPDATE installation SET incarnation = $1, quarantined_at = $2 WHERE one = 1", _drawn(12), micros(now)
    )
    return await read(tx)


async def quarantined(tx: Transaction, target: str) -> datetime | None:
    """Since when nothing that no lease stands for may be destroyed at `target`; None when it may be."""
    row = await tx.fetchrow(
        "SELECT i.quarantined_at, a.target FROM installation i LEFT JOIN adoptions a"
        " ON a.target = $1 AND a.incarnation = i.incarnation WHERE i.one = 1",
        target,
    )
    if row is None or row["quarantined_at"] is None or row["target"] is not None:
        return None
    return instant(row["quarantined_at"])


async def adopt(tx: Transaction, target: str, by: str, now: datetime) -> None:
    """Somebody looked at what is at `target`: its quarantine is over, in this life of the store."""
    await tx.execute(
        "INSERT INTO adoptions (target, incarnation, adopted_at, adopted_by)"
        " SELECT $1, incarnation, $2, $3 FROM installation WHERE one = 1"
        " ON CONFLICT (target) DO UPDATE SET incarnation = excluded.incarnation,"
        " adopted_at = excluded.adopted_at, adopted_by = excluded.adopted_by",
        target,
        micros(now),
        by,
    )


def _installation_of(row: Row | None) -> Installation:
    if row is None:
        raise RuntimeError("the store was not settled")
    return Installation(
        id=row["id"],
        incarnation=row["incarnation"],
        name_key=bytes.fromhex(row["name_key"]),
        quarantined_at=moment_of(row["quarantined_at"]),
    )


def _drawn(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
