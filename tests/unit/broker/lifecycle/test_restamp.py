"""A task that changed: its leases are brought to its new version or ended, by its scope and by every one above."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Fenced
from broker.lifecycle.restamp import restamp
from broker.model.lease import CloseReason, LeaseState
from broker.model.scope import Scope, Sensitivity, patterns
from broker.model.task import Task
from broker.store import tasks
from ca.errors import Stale
from fakes.world import House, living

EXACT = Scope(roles=patterns(["orders-db/readonly"]), sensitivity=Sensitivity.INTERNAL)


async def changed(house: House, task: Task, scope: Scope) -> Task:
    """Write a task's next version."""
    following = replace(task, version=task.version + 1, scope=scope)
    await house.world.database.write(lambda tx: tasks.update(tx, following, task.version))
    return following


@pytest.mark.parametrize(
    ("scope", "stays"),
    [
        (EXACT, True),
        (replace(EXACT, sensitivity=Sensitivity.RESTRICTED), True),
        (replace(EXACT, sensitivity=Sensitivity.PUBLIC), False),
        (replace(EXACT, roles=patterns(["orders-db/other"])), False),
        (Scope(), False),
    ],
)
@pytest.mark.parametrize("above", [False, True])
async def test_only_what_every_scope_of_the_chain_holds_stays(
    tmp_path: Path, scope: Scope, *, stays: bool, above: bool
) -> None:
    """By role and by sensitivity, its own and that of each task above."""
    async with living(tmp_path) as house:
        top = await house.open()
        task = await house.open(top)
        handed = await house.held(task)
        if above:
            await changed(house, top, scope)
            task = await changed(house, task, task.scope)
        else:
            task = await changed(house, task, scope)
        lease = await house.lease(handed.lease.id)
        assert lease.due_at < house.clock.now()
        after = await restamp(house.world, lease, house.clock.now())
        if stays:
            assert (after.state, after.task_version) == (LeaseState.ACTIVE, task.version)
            assert (after.until, after.due_at) == (lease.until, lease.until - timedelta(minutes=1))
        else:
            assert (after.state, after.close_reason) == (LeaseState.REVOKED, CloseReason.NARROWED)
            assert not house.engine.target.principals
        assert after == await house.lease(lease.id)


async def test_a_role_that_nobody_knows_any_more_is_inside_nothing(tmp_path: Path) -> None:
    """What it would be allowed to reach can't be told."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        await changed(house, task, task.scope)
        lease = await house.lease(handed.lease.id)
        ended = await restamp(replace(house.world, roles={}), lease, house.clock.now())
        assert ended.close_reason is CloseReason.NARROWED


async def test_a_task_that_ended_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    """Nothing is stamped, nothing is called narrowed."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.held(task)
        await house.end(await changed(house, task, task.scope))
        lease = await house.lease(handed.lease.id)
        with pytest.raises(Fenced):
            await restamp(house.world, lease, house.clock.now())
        assert await house.lease(lease.id) == lease


async def test_a_lease_that_moved_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    """It is read again first."""
    async with living(tmp_path) as house:
        task = await house.open()
        handed = await house.obtain(task)
        await changed(house, task, task.scope)
        old = await house.lease(handed.lease.id)
        await restamp(house.world, old, house.clock.now())
        with pytest.raises(Stale):
            await restamp(house.world, old, house.clock.now())
