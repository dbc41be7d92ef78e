"""T5: a login that was authenticated before the revoke, and shows itself only after it.

`post_auth_delay` is a startup option any client may set: the backend waits, authenticated, in no activity view.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker.engines.postgres.settings import Address
from broker.engines.protocol import Issued
from broker.errors import NotYet, TargetDown
from broker.model.lease import Handle
from servers.postgres import installations
from servers.postgres_place import PostgresPlace, postgres_place, reads

CASES = [(name, superuser) for name in installations() for superuser in (False, True)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{'-superuser' if case[1] else ''}")
async def place(request: pytest.FixtureRequest) -> AsyncIterator[PostgresPlace]:
    """A real PostgreSQL."""
    name, superuser = request.param
    async with postgres_place(installations()[name], superuser=superuser) as found:
        yield found


async def issue(place: PostgresPlace) -> tuple[Handle, Issued]:
    """A principal that may log in."""
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    return handle, await place.engine.create(handle, place.role, until, until)


async def hidden(place: PostgresPlace) -> set[int]:
    """Backends that hold the lock of a login, and show no user."""
    admin = await place.room.connect()
    try:
        rows = await admin.fetch("SELECT DISTINCT pid FROM pg_locks WHERE classid = 1262")
        seen = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL")
        return {row["pid"] for row in rows} - {row["pid"] for row in seen}
    finally:
        await admin.close()


async def stretched(place: PostgresPlace, issued: Issued, seconds: int, outcome: list[Any]) -> None:
    """Log in with the window held open, then read."""
    name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
    settings = {"post_auth_delay": str(seconds)}
    try:
        connection = await place.room.connect(name, password, server_settings=settings)
    except (asyncpg.PostgresError, OSError) as error:
        outcome.append(error)
        return
    outcome.append(await reads(connection))
    connection.terminate()


async def test_a_login_in_flight_at_the_revoke_never_reads(place: PostgresPlace) -> None:
    """It was authenticated and hidden when access ended; it is dead before the lease says verified."""
    handle, issued = await issue(place)
    outcome: list[Any] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(stretched(place, issued, 4, outcome))
        while not await hidden(place):
            await place.clock.sleep(0.02)
        await place.engine.end_access(handle)
        assert not await hidden(place)
        await place.engine.clean_up(handle)
    assert len(outcome) == 1
    assert outcome[0] is not True


async def test_a_replaced_secret_cuts_who_was_logging_in_with_the_old_one(place: PostgresPlace) -> None:
    """The same window, at a re-issue."""
    handle, issued = await issue(place)
    outcome: list[Any] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(stretched(place, issued, 4, outcome))
        while not await hidden(place):
            await place.clock.sleep(0.02)
        until = place.clock.now() + timedelta(seconds=60)
        new = await place.engine.replace(handle, place.role, until, until)
        assert not await hidden(place)
    assert outcome[0] is not True
    assert await place.login(new) is not None


async def test_an_honest_login_of_somebody_else_survives_the_revoke(place: PostgresPlace) -> None:
    """Only who stays hidden longer than an honest login does is ended."""
    handle, _ = await issue(place)
    other = place.engine.plan(place.role, place.prefix + "y" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    friend = await place.engine.create(other, place.role, until, until)
    outcome: list[Any] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(stretched(place, friend, 0, outcome))
        await place.engine.end_access(handle)
    assert outcome == [True] * 8


async def test_a_session_that_holds_the_row_of_its_own_role_delays_nothing(place: PostgresPlace) -> None:
    """An open `ALTER ROLE CURRENT_USER` locks the very row that must be changed; its holder is cut first."""
    handle, issued = await issue(place)
    visit = await place.login(issued)
    assert visit is not None
    await visit.connection.execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    async with asyncio.timeout(20):
        await place.engine.end_access(handle)
    assert not await visit.answers()
    assert await place.login(issued) is None


async def test_a_principal_dropped_by_hand_keeps_no_session(place: PostgresPlace) -> None:
    """A role that is gone may have sessions still; ending its access ends them."""
    handle, issued = await issue(place)
    visit = await place.login(issued)
    admin = await place.room.connect()
    await admin.execute(f'DROP ROLE "{handle.name}"')
    await admin.close()
    ended = await place.engine.end_access(handle)
    assert ended.sessions_cut == 1
    assert visit is not None
    assert not await visit.answers()


async def test_what_it_owns_goes_with_it(place: PostgresPlace) -> None:
    """Objects in any database are dropped, never handed to somebody else."""
    handle, issued = await issue(place)
    owner = await place.server.connect(place.room.database)
    await owner.execute(f'CREATE SCHEMA planted AUTHORIZATION "{handle.name}"')
    visit = await place.login(issued)
    assert visit is not None
    await visit.connection.execute(
        "CREATE FUNCTION planted.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
    )
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)
    assert not await place.engine.names(place.prefix)
    assert await owner.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'planted'") == 0
    await owner.close()


async def test_a_right_somebody_else_gave_it_keeps_the_name_and_nothing_more(place: PostgresPlace) -> None:
    """What we may not revoke stays until its owner does; the door is shut all the same, and the trouble is named."""
    handle, issued = await issue(place)
    owner = await place.server.connect(place.room.database)
    await owner.execute(f'GRANT SELECT ON orders TO "{handle.name}"')
    await place.engine.end_access(handle)
    assert await place.login(issued) is None
    if not place.superuser:
        with pytest.raises(NotYet, match=place.room.database):
            await place.engine.clean_up(handle)
        await owner.execute(f'REVOKE SELECT ON orders FROM "{handle.name}"')
    await place.engine.clean_up(handle)
    await owner.close()
    assert not await place.engine.names(place.prefix)


@pytest.mark.parametrize("name", installations())
async def test_a_prepared_transaction_of_its_own_delays_nothing(name: str) -> None:
    """It outlives its session and holds its locks; it is rolled back as its owner."""
    binaries: Path = installations()[name]
    async with postgres_place(binaries, options=("max_prepared_transactions=5",), fresh=True) as place:
        handle, issued = await issue(place)
        visit = await place.login(issued)
        assert visit is not None
        await visit.connection.execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'; PREPARE TRANSACTION 'it''s'")
        async with asyncio.timeout(40):
            await place.engine.end_access(handle)
            await place.engine.clean_up(handle)
        assert not await place.engine.names(place.prefix)
        assert await place.login(issued) is None


async def test_an_endpoint_that_can_not_be_asked_is_not_verified() -> None:
    """A standby may hold a session of its own: without its word the door is shut, and the lease has not ended."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        standby = Address(host="127.0.0.1", port=nobody.getsockname()[1])
        async with postgres_place(standbys=(standby,)) as place:
            handle, issued = await issue(place)
            with pytest.raises(TargetDown):
                await place.engine.end_access(handle)
            assert await place.login(issued) is None


async def test_a_principal_somebody_else_holds_locked_is_not_verified(place: PostgresPlace) -> None:
    """Its sessions are cut, but it may still log in: that is said, and the ending is tried again."""
    handle, issued = await issue(place)
    holder = await place.server.connect()
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM pg_catalog.pg_authid WHERE rolname = $1 FOR UPDATE", handle.name)
    async with asyncio.timeout(60):
        with pytest.raises(NotYet, match="locked"):
            await place.engine.end_access(handle)
        await holder.execute("ROLLBACK")
        await holder.close()
        await place.engine.end_access(handle)
    assert await place.login(issued) is None
