"""Tokens of a cluster as leases of a broker: from the task that gets one to the record that it is gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from broker.model.lease import LeaseState
from fakes.clock import ManualClock
from fakes.world import living
from servers.kubernetes_place import NAMESPACE, kubernetes_place


async def test_a_lease_is_revoked_when_no_api_server_remembers(tmp_path: Path) -> None:
    """Not when the Secret is gone: somebody who used the token a moment ago may be let in until then."""
    clock = ManualClock()
    async with kubernetes_place(clock=clock, remembered="10s") as place:
        place.cluster.remembers = timedelta(seconds=10)
        async with living(tmp_path, clock=clock, engine=place.engine, the_role=place.role) as house:
            task = await house.open()
            handed = await house.held(task)
            assert await place.login(handed.issued) is not None
            await house.end(task)
            await house.reap()
            assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKING
            assert await place.login(handed.issued) is not None
            for _ in range(20):
                await clock.advance(1)
                await house.reap()
            lease = await house.lease(handed.lease.id)
            assert lease.state is LeaseState.REVOKED
            assert lease.access_ended_at is not None
            assert lease.revoking_at is not None
            assert lease.access_ended_at >= lease.revoking_at + timedelta(seconds=10)
            assert await place.login(handed.issued) is None
            assert [name for _, name in place.cluster.secrets] == ["sj-claim"]


async def test_a_secret_no_lease_stands_for_is_swept(tmp_path: Path) -> None:
    """What somebody without a store left: seen, seen again, ended, cleared away; another's is not looked at."""
    clock = ManualClock()
    async with (
        kubernetes_place(clock=clock, remembered="10s") as place,
        living(tmp_path, clock=clock, engine=place.engine, the_role=place.role) as house,
    ):
        await house.held(await house.open())
        installation = house.world.installation.id
        now = clock.now()
        for name in (f"sj_{installation}_stray", "sj_zzzzzzzz_stray"):
            handle = place.engine.plan(place.role, name)
            await place.engine.create(handle, place.role, now + timedelta(minutes=10), now + timedelta(seconds=10))
        for _ in range(8):
            await clock.advance(60)
            await house.sweep()
        there = [name for namespace, name in place.cluster.secrets if namespace == NAMESPACE]
        assert f"sj-{installation}-stray" not in there
        assert "sj-zzzzzzzz-stray" in there
        assert len(there) == 3
