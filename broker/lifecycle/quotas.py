"""Back-pressure before any work outside: what a grant would add is counted in the transaction of its intent."""

from __future__ import annotations

from datetime import datetime

from broker.errors import QuotaReached
from broker.lifecycle.world import World
from broker.model.quota import Quota
from broker.model.task import Task
from broker.store import quotas
from ca.runtime.clock import micros
from ca.runtime.database import Transaction

_MINUTE = 60_000_000


async def demand(world: World, tx: Transaction, task: Task, target: str, now: datetime) -> None:
    """Let one more lease of `task` at `target` come to be. Raises QuotaReached."""
    for quota, most in world.quotas.bounds():
        if await _count(world, tx, quota, task, target, now, most) >= most:
            raise _reached(quota, most, task, target, now)


async def _count(  # noqa: PLR0917 - what is counted, of whom, where, when, and up to what
    world: World, tx: Transaction, quota: Quota, task: Task, target: str, now: datetime, most: int
) -> int:
    if quota is Quota.LEASES_PER_IDENTITY:
        return await quotas.open_of_owner(tx, task.owner, most)
    if quota is Quota.LEASES_PER_TASK:
        return await quotas.open_of_task(tx, task.id, most)
    if quota is Quota.LEASES_PER_TARGET:
        return await quotas.open_at(tx, target, most)
    return await quotas.grant(tx, task.owner, micros(now) // _MINUTE, world.broker) - 1


def _reached(quota: Quota, most: int, task: Task, target: str, now: datetime) -> QuotaReached:
    rest = (_MINUTE - micros(now) % _MINUTE + 999_999) // 1_000_000
    words = {
        Quota.LEASES_PER_IDENTITY: f"`{task.owner}` holds {most} secrets, the most it may hold at once",
        Quota.LEASES_PER_TASK: f"the task holds {most} secrets, the most it may hold at once",
        Quota.LEASES_PER_TARGET: f"of the target `{target}` {most} secrets are out, the most there may be at once",
        Quota.GRANTS_PER_MINUTE: f"`{task.owner}` was given {most} secrets in this minute, the most it may be given",
    }[quota]
    wait = rest if quota is Quota.GRANTS_PER_MINUTE else 1
    return QuotaReached(words, quota=str(quota), limit=most, retry_after=wait)
