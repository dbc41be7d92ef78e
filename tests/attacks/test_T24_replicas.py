"""T24: a replica of a MariaDB hears of everything late, of a principal's making and of its end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.engines.mysql import open_engine
from broker.engines.protocol import Issued, Lent
from broker.errors import NotYet
from broker.model.lease import Handle
from servers.mariadb import Server, mariadb
from servers.mariadb_place import MariadbPlace, mariadb_place, settings_for

_FOLLOW = """
CHANGE MASTER TO MASTER_HOST='{host}', MASTER_PORT={port}, MASTER_USER='follower', MASTER_PASSWORD='follower',
  MASTER_CONNECT_RETRY=1;
START SLAVE;
"""


@pytest.fixture
async def place() -> AsyncIterator[MariadbPlace]:
    """A room of a primary that writes down what it does; the room itself is the first of it."""
    async with mariadb_place(options=("--log-bin", "--server-id=1"), fresh=True) as found:
        yield found


@pytest.fixture
async def replica(place: MariadbPlace) -> AsyncIterator[Server]:
    """Another server, which has done everything after the primary that was done there, but for root, whom it has."""
    place.server.ask("CREATE USER follower IDENTIFIED BY 'follower'; GRANT REPLICATION SLAVE ON *.* TO follower;")
    async with mariadb(options=("--server-id=2", "--slave-skip-errors=1396"), fresh=True) as server:
        server.ask(_FOLLOW.format(host=place.server.host, port=place.server.port))
        await arrived(place, server)
        yield server


async def arrived(place: MariadbPlace, replica: Server) -> None:
    """Wait until the replica has done what the primary did."""
    mark = f"arrived_{secrets.token_hex(4)}"
    place.server.ask(f"CREATE DATABASE {mark}")
    async with asyncio.timeout(60):
        while replica.client("root", replica.password, f"USE {mark}").returncode:
            await place.clock.sleep(0.02)


async def make(place: MariadbPlace) -> tuple[Handle, Issued]:
    """A principal at the primary."""
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=120)
    return handle, await place.engine.create(handle, place.role, until, until)


def lets_in(server: Server, issued: Issued) -> bool:
    """Whether a login opens there."""
    name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
    return server.client(name, password, "SELECT 1").returncode == 0


async def test_a_replica_that_has_not_heard_of_it_at_all_will_let_it_in(place: MariadbPlace, replica: Server) -> None:
    """Nobody is there yet; but first it hears that the principal was made, and only then that it was ended."""
    where = {"host": replica.host, "port": replica.port}
    async with open_engine(settings_for(place.room, replicas=(where,)), Lent(clock=place.clock)) as engine:
        replica.ask("STOP SLAVE SQL_THREAD")
        handle, issued = await make(place)
        with pytest.raises(NotYet, match="replica has not heard"):
            await engine.end_access(handle)
        assert not lets_in(replica, issued)
        replica.ask("START SLAVE SQL_THREAD")
        assert (await engine.end_access(handle)).endpoints == 2
        assert not lets_in(replica, issued)
        await engine.clean_up(handle)
        assert (await engine.end_access(handle)).endpoints == 2


async def test_while_it_has_not_heard_of_the_end_nothing_is_verified(place: MariadbPlace, replica: Server) -> None:
    """It still lets everybody in."""
    where = {"host": replica.host, "port": replica.port}
    async with open_engine(settings_for(place.room, replicas=(where,)), Lent(clock=place.clock)) as engine:
        handle, issued = await make(place)
        await arrived(place, replica)
        assert lets_in(replica, issued)
        replica.ask("STOP SLAVE SQL_THREAD")
        with pytest.raises(NotYet, match="replica has not heard"):
            await engine.end_access(handle)
        assert lets_in(replica, issued)
        replica.ask("START SLAVE SQL_THREAD")
        assert (await engine.end_access(handle)).endpoints == 2
        assert not lets_in(replica, issued)
