"""A task that changed and lives on: what is still inside its scope stays, the rest is revoked (DESIGN 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.lifecycle import withdraw
from broker.lifecycle.schedule import next_due
from broker.lifecycle.world import World
from broker.model.lease import CloseReason, Lease
from broker.model.task import Task
from broker.store import leases, tasks
from ca.runtime import failpoint
from ca.runtime.database import Transaction


async def restamp(world: World, lease: Lease, now: datetime) -> Lease:
    """Bring an active lease to the present version of its live task, or end it.

    Raises:
        Fenced, Stale: the task or the lease moved on meanwhile; it is looked at again.
    """

    async def unit(tx: Transaction) -> Lease | None:
        present = await tasks.get(tx, lease.task)
        line = await tasks.touch(tx, lease.task, present.version)
        if not _inside(world, lease, line):
            return None
        due = next_due(world, replace(lease, task_version=present.version))
        return await leases.keep(tx, lease, task_version=present.version, due_at=due)

    failpoint.reach("restamp.commit.before")
    stamped = await world.database.write(unit)
    failpoint.reach("restamp.commit.after")
    return stamped if stamped is not None else await withdraw.end(world, lease, CloseReason.NARROWED, now)


def _inside(world: World, lease: Lease, line: Sequence[Task]) -> bool:
    if lease.is_identity:
        return True  # whatever a task may reach, it stays who it is
    role = world.roles.get(lease.role)
    if role is None:
        return False
    return all(link.scope.allows_role(lease.role) and role.sensitivity <= link.scope.sensitivity for link in line)
