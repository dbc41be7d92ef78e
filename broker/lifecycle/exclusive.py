"""What only one lease may have at a time: claimed in the transaction of its intent, free when the lease has closed.

The store itself refuses a second one (a unique index over open leases), so two brokers can't both win.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from broker.engines.protocol import Borrowing
from broker.errors import CheckedOut
from broker.lifecycle.world import World
from broker.model.lease import Lease
from broker.model.role import Role
from broker.store import leases
from ca.runtime.database import Duplicate, Transaction


def beneath(world: World, role: Role) -> tuple[str, ...]:
    """The targets a role works at: its own, and the one it works through."""
    engine, _ = world.at(role.target)
    other = engine.beneath(role) if isinstance(engine, Borrowing) else None
    return (role.target,) if other is None else (role.target, other)


async def claim(tx: Transaction, lease: Lease) -> None:
    """Before `lease` is written: nobody else may have what it wants alone. Raises CheckedOut."""
    if lease.exclusive is None:
        return
    holder = await leases.holding(tx, lease.exclusive)
    if holder is not None:
        raise CheckedOut(
            f"`{lease.exclusive}` is checked out: ask again when it was given back, by {holder.until.isoformat()}"
            " unless that is renewed",
            until=holder.until.isoformat(),
        )


@contextmanager
def claimed_once(world: World, role: Role) -> Iterator[None]:
    """Around the transaction: a second claim in the same moment is refused by the store. Raises CheckedOut."""
    try:
        yield
    except Duplicate as error:
        if len(beneath(world, role)) == 1:
            raise
        raise CheckedOut(f"`{role.full_name}` was asked for twice in the same moment, ask again") from error
