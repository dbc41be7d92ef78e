"""The agent says that it received a secret: from then on nothing shows it again, and nothing revokes it for silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.lifecycle import told
from broker.lifecycle.schedule import next_due
from broker.lifecycle.world import World
from broker.model.ids import LeaseId, TaskId
from broker.model.lease import Lease, LeaseEvent
from broker.model.receipt import ReceiptKind
from broker.store import leases, receipts, tasks
from ca.errors import NotFound
from ca.runtime import failpoint
from ca.runtime.database import Transaction, Unit


async def acknowledge(world: World, task: TaskId, lease: LeaseId, actor: str, now: datetime) -> Lease:
    """Note that `task` received the secret of its lease; twice is once.

    Raises:
        NotFound: the task has no such lease.
        Fenced: the task ended.
        NotPossible: the lease is being ended, or is over.
    """
    failpoint.reach("acknowledge.commit.before")
    acknowledged = await world.database.write(acknowledging(world, task, lease, actor, now))
    failpoint.reach("acknowledge.commit.after")
    return acknowledged


def acknowledging(world: World, task: TaskId, lease: LeaseId, actor: str, now: datetime) -> Unit[Lease]:
    """The unit of `acknowledge`, for whoever acknowledges several at once."""

    async def unit(tx: Transaction) -> Lease:
        found = await leases.get(tx, lease)
        if found.task != task:
            raise NotFound("there is no such lease")
        if found.acknowledged_at is not None:
            return found
        world.refuse_unrecorded(await tasks.touch(tx, task, None, now))
        due = next_due(world, replace(found, acknowledged_at=now))
        kept = await leases.move(tx, found, LeaseEvent.ACKNOWLEDGED, acknowledged_at=now, due_at=due)
        said = told.receipt(ReceiptKind.LEASE_ACKNOWLEDGED, kept, actor, now)
        await receipts.append(tx, world.broker, said)
        return kept

    return unit
