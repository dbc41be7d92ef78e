"""Traps 20: a store that can lose what it called durable is refused, and one that was replaced is noticed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ca.errors import Unavailable
from ca.runtime.database import open_database
from ca.runtime.postgres import open_postgres
from ca.runtime.postgres_session import Unsafe
from fakes.stores import as_superuser, create, database_of, insert, postgres_address, tapped_store
from servers.postgres import postgres, standby_of


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """Of a store of this test's own."""
    return await postgres_address(tmp_path)


async def test_a_server_that_answers_before_its_disk_is_refused_at_start_and_when_it_comes_back(address: str) -> None:
    """Traps 20: `synchronous_commit` off; a session that is open keeps what it was promised."""
    off = f"ALTER DATABASE {database_of(address)} SET synchronous_commit = off"
    async with tapped_store(address) as (store, tap):
        await as_superuser(address, off)
        await store.write(insert(1))
        tap.cut_all()
        with pytest.raises(Unsafe, match="synchronous_commit"):
            await store.write(insert(2))
    with pytest.raises(Unsafe, match="synchronous_commit"):
        async with open_database(address):
            pass


async def test_a_server_without_fsync_is_refused() -> None:
    """What it calls durable is gone with the power."""
    async with postgres(options=("fsync=off",), fresh=True) as server:
        with pytest.raises(Unsafe, match="fsync"):
            async with open_database(await server.store("plain")):
                pass


async def test_another_store_behind_the_same_address_is_noticed(address: str) -> None:
    """Dropped and made anew, restored, promoted: what this process remembers is worth nothing then."""
    heard: list[BaseException] = []
    name = database_of(address)
    async with open_postgres(address, on_change=heard.append) as store:
        await store.write(create)
        async with postgres() as server:
            connection = await server.connect()
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
            await connection.close()
        with pytest.raises(Unavailable, match="may be gone"):
            await store.write(insert(1))
    assert len(heard) == 1


async def test_a_promoted_replica_is_another_incarnation() -> None:
    """It may lack what the primary had told to be durable; a replica that was not promoted takes no writes at all."""
    heard: list[BaseException] = []
    async with postgres(fresh=True) as primary:
        address = await primary.store("ha")
        with standby_of(primary) as standby:
            both = address.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
            async with open_postgres(both, on_change=heard.append) as store:
                await store.write(create)
                primary.stop(signal.SIGKILL)
                with pytest.raises(Unavailable, match="can't be reached"):
                    await store.write(insert(1))
                connection = await standby.connect()
                assert await connection.fetchval("SELECT pg_promote()")
                await connection.close()
                with pytest.raises(Unavailable, match=r"timeline 1.*timeline 2.*may be gone"):
                    await store.write(insert(1))
    assert len(heard) == 1
