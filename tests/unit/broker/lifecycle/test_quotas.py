"""Quotas: reached before anything is made, by identity, task, target and minute; room comes back with what is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.errors import QuotaReached
from broker.lifecycle import withdraw
from broker.lifecycle.reissue import MOST
from broker.model.ids import InstanceId
from broker.model.lease import CloseReason
from broker.model.quota import Quota, Quotas
from broker.store import quotas
from ca.errors import Exhausted
from ca.spiffe.id import SpiffeId
from fakes.clock import ManualClock
from fakes.front import ROLE, call, front, obtained, opened
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import AGENT, House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

OTHER = SpiffeId.parse("spiffe://example.org/other")


async def refused(house: House, task: Any, quota: Quota) -> QuotaReached:
    """It is refused by that quota; nothing was made, and nothing is remembered of it."""
    before = (len(await house.leases()), dict(house.engine.target.principals), len(await house.receipts()))
    with pytest.raises(QuotaReached) as caught:
        await house.obtain(task)
    most = dict(house.world.quotas.bounds())[quota]
    assert (caught.value.details["quota"], caught.value.details["limit"]) == (quota, most)
    assert quota is Quota.GRANTS_PER_MINUTE or caught.value.details["retry_after"] == 1
    assert before == (len(await house.leases()), house.engine.target.principals, len(await house.receipts()))
    return caught.value


async def test_one_task_holds_so_many(tmp_path: Path) -> None:
    """Its sibling has its own; one that is being given back makes room only when it is gone."""
    async with living(tmp_path, quotas=Quotas(leases_per_task=2)) as house:
        task, sibling = await house.open(), await house.open()
        first, _ = [(await house.held(task)).lease for _ in range(2)]
        await refused(house, task, Quota.LEASES_PER_TASK)
        await house.held(sibling)
        house.engine.fail("end_access")
        await withdraw.begin(house.world, first.id, CloseReason.ASKED, house.clock.now())
        await house.reap()
        await refused(house, task, Quota.LEASES_PER_TASK)
        await house.clock.advance(60)
        await house.reap()
        await house.held(task)


async def test_one_identity_holds_so_many_in_all_its_tasks(tmp_path: Path) -> None:
    """What an ended task still has outside counts; what is gone does not, and neither does another's."""
    async with living(tmp_path, quotas=Quotas(leases_per_identity=3)) as house:
        first, second, other = await house.open(), await house.open(), await house.open(owner=OTHER)
        for task in (first, first, second):
            await house.held(task)
        await refused(house, second, Quota.LEASES_PER_IDENTITY)
        await house.held(other)
        await house.end(first)
        await refused(house, second, Quota.LEASES_PER_IDENTITY)
        await house.reap()
        await house.held(second)
        await house.held(second)
        await refused(house, second, Quota.LEASES_PER_IDENTITY)


async def test_a_target_has_so_many_out(tmp_path: Path) -> None:
    """Of whomever they are; a target that is down and can't be cleaned up is given no more."""
    async with living(tmp_path, quotas=Quotas(leases_per_target=2)) as house:
        one, other = await house.open(), await house.open(owner=OTHER)
        await house.held(one)
        await house.held(other)
        refusal = await refused(house, one, Quota.LEASES_PER_TARGET)
        assert "orders-db" in str(refusal)
        await house.end(other)
        await house.reap()
        await house.held(one)


async def test_grants_come_at_a_pace(tmp_path: Path) -> None:
    """So many in a minute of the clock, of every broker together; it says when to come back. A re-issue is no grant."""
    async with living(tmp_path, quotas=Quotas(grants_per_minute=2)) as house:
        clock: ManualClock = house.clock
        await clock.advance(60 - clock.now().second)
        task, other = await house.open(), await house.open(owner=OTHER)
        await house.obtain(task, key="same")
        await house.obtain(task, key="same")
        now = clock.now()
        await house.world.database.write(
            lambda tx: quotas.grant(tx, AGENT, int(now.timestamp()) // 60, "b-of-another-process")
        )
        await clock.advance(18)
        refusal = await refused(house, task, Quota.GRANTS_PER_MINUTE)
        assert refusal.details["retry_after"] == 42
        await clock.advance(0.5)
        assert (await refused(house, task, Quota.GRANTS_PER_MINUTE)).details["retry_after"] == 42
        await house.obtain(other)
        await clock.advance(41.4)
        assert (await refused(house, task, Quota.GRANTS_PER_MINUTE)).details["retry_after"] == 1
        await clock.advance(0.1)
        await house.obtain(task)


async def test_one_request_is_not_answered_for_ever(tmp_path: Path) -> None:
    """No quota counts a re-issue, and each is work at the target: it ends, and the secret is taken back in time."""
    async with living(tmp_path, quotas=Quotas(grants_per_minute=1)) as house:
        task = await house.open()
        for _ in range(MOST):
            lease = (await house.obtain(task, key="same")).lease
        with pytest.raises(Exhausted, match="none was acknowledged"):
            await house.obtain(task, key="same")
        assert (await house.lease(lease.id)).generation == MOST
        await house.clock.advance(31)
        await house.reap()
        assert (await house.lease(lease.id)).is_closed


async def test_a_task_s_own_identity_counts_for_nothing(tmp_path: Path) -> None:
    """It is given by the broker, not asked for."""
    async with living(tmp_path, quotas=Quotas(leases_per_task=1, leases_per_identity=1)) as house:
        task = await house.open(instance=InstanceId("0" * 32))
        lease = (await house.held(task)).lease
        await house.world.database.write(
            lambda tx: tx.execute("UPDATE leases SET engine = 'svid' WHERE id = $1", lease.id)
        )
        await house.held(task)
        await refused(house, task, Quota.LEASES_PER_IDENTITY)


async def test_the_answer_names_the_quota_and_when_to_come_back(tmp_path: Path) -> None:
    """429 as problem+json, `Retry-After`, and a count for the operator; a task that ends makes room."""
    async with (
        front(tmp_path, quotas=Quotas(leases_per_identity=1)) as house,
        house.session(house.agent()) as session,
    ):
        first, second = await opened(session), await opened(session)
        await obtained(session, first)
        async with session.post(f"/v1/tasks/{second}/credentials", json={"role": ROLE}) as answer:
            said = await answer.json(content_type="application/problem+json")
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (said["code"], said["quota"], said["limit"]) == ("quota-reached", "leases-per-identity", 1)
        assert said["retryable"] is True
        counted = 'sojourn_quotas_reached_total{quota="leases-per-identity"} 1.0'
        assert counted in house.gate.metrics.render().decode()
        assert (await call(session, "POST", f"/v1/tasks/{first}/end", {}))[0] == 200
        await house.tick()
        await obtained(session, second)
