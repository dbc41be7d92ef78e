"""T24: a standby hears of an ending late, and has sessions nobody sees from the primary: each endpoint is looked at."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from broker.engines.postgres import Postgres, open_engine
from broker.engines.postgres.settings import Address
from broker.engines.protocol import Issued, Lent
from broker.errors import NotYet, TargetDown
from broker.model.lease import Handle
from broker.model.role import Role
from ca.runtime.clock import SystemClock
from fakes.world import role
from servers.place import new_prefix
from servers.postgres import Room, Server, kept_standby_of, postgres
from servers.postgres_place import reads, settings_for
from servers.standby import arrived

CLOCK = SystemClock()


@dataclass
class Cluster:
    """A primary, one standby that streams from it, and an endpoint where nobody listens, if it was asked for."""

    engine: Postgres
    room: Room
    standby: Server
    role: Role
    prefix: str

    async def make(self) -> tuple[Handle, Issued]:
        """A principal that may log in at the primary."""
        handle = self.engine.plan(self.role, self.prefix + "x" * 20)
        until = CLOCK.now() + timedelta(seconds=120)
        return handle, await self.engine.create(handle, self.role, until, until)

    async def issue(self) -> tuple[Handle, Issued]:
        """A principal that may log in at the primary, and at the standby, which has heard of it."""
        handle, issued = await self.make()
        async with asyncio.timeout(30):
            while (visit := await self.enter(issued)) is None:
                await CLOCK.sleep(0.02)
        visit.terminate()
        return handle, issued

    async def enter(self, issued: Issued, **options: Any) -> Any:
        """A session at the standby; None when it is refused."""
        name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
        try:
            return await asyncpg.connect(
                host=self.standby.host,
                port=self.standby.port,
                database=self.room.database,
                user=name,
                password=password,
                **options,
            )
        except (asyncpg.PostgresError, OSError):
            return None

    async def tell(self, statement: str) -> None:
        """As the superuser of the standby."""
        owner = await self.standby.connect()
        try:
            await owner.execute(statement)
        finally:
            await owner.close()


@asynccontextmanager
async def opened(*more: Address) -> AsyncIterator[Cluster]:
    """A room of a cluster that is started once."""
    async with postgres(options=("max_wal_senders=4",)) as server, server.room() as room:
        standby = kept_standby_of(server)
        await arrived(server, standby)  # with the admin of this room
        standbys = (*more, Address(host=standby.host, port=standby.port))
        async with open_engine(settings_for(room, standbys=standbys), Lent(clock=CLOCK)) as engine:
            groups = {"groups": [room.groups[0]]}
            yield Cluster(engine, room, standby, role(engine="postgres", settings=groups), new_prefix())


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A primary and its standby."""
    async with opened() as found:
        yield found


async def test_sessions_at_a_standby_are_cut_and_its_door_is_shut(cluster: Cluster) -> None:
    """Both endpoints were looked at."""
    handle, issued = await cluster.issue()
    visits = [await cluster.enter(issued) for _ in range(3)]
    assert all([await reads(visit) for visit in visits])
    ended = await cluster.engine.end_access(handle)
    assert (ended.sessions_cut, ended.endpoints) == (3, 2)
    assert not any([await reads(visit) for visit in visits])
    assert await cluster.enter(issued) is None
    await cluster.engine.clean_up(handle)


async def test_a_login_in_flight_at_a_standby_never_reads(cluster: Cluster) -> None:
    """It was let in and hides from the activity view when access ends."""
    handle, issued = await cluster.issue()
    outcome: list[Any] = []

    async def stretched() -> None:
        visit = await cluster.enter(issued, server_settings={"post_auth_delay": "4"})
        outcome.append(None if visit is None else await reads(visit))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(stretched())
        owner = await cluster.standby.connect()
        hidden = (
            "SELECT count(*) FROM (SELECT pid FROM pg_locks WHERE classid = 1262"
            " EXCEPT SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL) AS h"
        )
        while not await owner.fetchval(hidden):
            await CLOCK.sleep(0.02)
        await owner.close()
        await cluster.engine.end_access(handle)
    assert outcome[0] is not True


async def test_while_replay_is_paused_nothing_is_verified(cluster: Cluster) -> None:
    """The standby still lets it in: whoever is there is cut, and the ending is not believed before it has heard."""
    handle, issued = await cluster.issue()
    visit = await cluster.enter(issued)
    await cluster.tell("SELECT pg_wal_replay_pause()")
    with pytest.raises(NotYet, match="standby has not heard"):
        await cluster.engine.end_access(handle)
    assert not await reads(visit)
    again = await cluster.enter(issued)
    assert again is not None
    await cluster.tell("SELECT pg_wal_replay_resume()")
    assert (await cluster.engine.end_access(handle)).endpoints == 2
    assert not await reads(again)
    assert await cluster.enter(issued) is None


async def test_a_standby_that_has_not_heard_of_it_at_all_will_let_it_in(cluster: Cluster) -> None:
    """Nobody is there yet; but first it hears that the principal was made, and only then that it was ended."""
    await cluster.tell("SELECT pg_wal_replay_pause()")
    handle, issued = await cluster.make()
    with pytest.raises(NotYet, match="standby has not heard"):
        await cluster.engine.end_access(handle)
    assert await cluster.enter(issued) is None
    await cluster.tell("SELECT pg_wal_replay_resume()")
    assert (await cluster.engine.end_access(handle)).endpoints == 2
    assert await cluster.enter(issued) is None
    await cluster.engine.clean_up(handle)
    assert (await cluster.engine.end_access(handle)).endpoints == 2


async def test_a_standby_that_is_down_is_not_verified_until_it_is_back(cluster: Cluster) -> None:
    """It may have been cut off with somebody inside."""
    handle, issued = await cluster.issue()
    cluster.standby.stop(signal.SIGINT)
    with pytest.raises(TargetDown):
        await cluster.engine.end_access(handle)
    cluster.standby.start()
    assert (await cluster.engine.end_access(handle)).endpoints == 2
    assert await cluster.enter(issued) is None


async def test_one_standby_that_is_down_saves_nobody_at_another() -> None:
    """All are looked at; then it is said that one did not answer."""
    async with opened(Address(host="127.0.0.1", port=1)) as cluster:
        handle, issued = await cluster.issue()
        visit = await cluster.enter(issued)
        with pytest.raises(TargetDown, match=r"127\.0\.0\.1:1`"):
            await cluster.engine.end_access(handle)
        assert not await reads(visit)
        assert await cluster.enter(issued) is None


async def test_a_replaced_secret_is_dead_at_the_standby_too(cluster: Cluster) -> None:
    """What it opened there is cut before the new one is handed over."""
    handle, old = await cluster.issue()
    visit = await cluster.enter(old)
    until = CLOCK.now() + timedelta(seconds=60)
    await cluster.engine.replace(handle, cluster.role, until, until)
    assert not await reads(visit)
    assert await cluster.enter(old) is None


async def test_a_check_looks_at_every_endpoint() -> None:
    """A standby that can't be asked is a finding with its way out, and no probe is tried."""
    async with opened(Address(host="127.0.0.1", port=1)) as cluster:
        found = {one.name: one for one in await cluster.engine.check([cluster.role], cluster.prefix)}
        assert found[f"standby 127.0.0.1:{cluster.standby.port}"].well
        assert not found["standby 127.0.0.1:1"].well
        assert "take it out of `standbys`" in str(found["standby 127.0.0.1:1"].fix)
        assert not any(name.startswith("role ") for name in found)
