"""T13: whoever caught the first answer is in already when the second is asked for, and does not want to leave.

A leased user may set its own password. A thief who does nothing else, over and over, must not have the last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from broker.engines.postgres.scram import verifier
from broker.engines.postgres.settings import Address
from broker.engines.protocol import Issued
from broker.errors import TargetDown
from broker.model.lease import Handle
from servers.postgres import installations
from servers.postgres_place import PostgresPlace, PostgresVisit, postgres_place

CASES = [(name, superuser) for name in installations() for superuser in (False, True)]
MINE = "mine"


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{'-superuser' if case[1] else ''}")
async def place(request: pytest.FixtureRequest) -> AsyncIterator[PostgresPlace]:
    """A real PostgreSQL."""
    name, superuser = request.param
    async with postgres_place(installations()[name], superuser=superuser) as found:
        yield found


async def stolen(place: PostgresPlace) -> tuple[Handle, PostgresVisit]:
    """A principal whose first secret let the thief in."""
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    visit = await place.login(await place.engine.create(handle, place.role, until, until))
    assert visit is not None
    return handle, visit


async def replaced(place: PostgresPlace, handle: Handle) -> Issued:
    """The retry."""
    until = place.clock.now() + timedelta(seconds=60)
    issued: Issued = await place.engine.replace(handle, place.role, until, until)
    return issued


async def own_password_opens(place: PostgresPlace, handle: Handle) -> bool:
    """Whether the thief's password lets somebody in."""
    with contextlib.suppress(asyncpg.PostgresError):
        (await place.room.connect(handle.name, MINE)).terminate()
        return True
    return False


async def test_a_thief_that_sets_its_own_password_all_the_time_loses_it(place: PostgresPlace) -> None:
    """Its sessions are gone before the new secret is set, so that nobody writes over it."""
    handle, visit = await stolen(place)
    setting = asyncio.Event()

    async def persist() -> None:
        with contextlib.suppress(asyncpg.InterfaceError, OSError):
            while not visit.connection.is_closed():
                with contextlib.suppress(asyncpg.InternalServerError):  # tuple concurrently updated
                    await visit.connection.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{verifier(MINE, 1)}'")
                setting.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        thief = group.create_task(_quietly(persist()))
        await setting.wait()
        new = await replaced(place, handle)
        await thief
    assert await place.login(new) is not None
    assert not await own_password_opens(place, handle)
    assert not await visit.answers()


async def test_a_thief_that_holds_the_row_of_its_role_delays_nothing(place: PostgresPlace) -> None:
    """It is cut, and its change with it."""
    handle, visit = await stolen(place)
    await visit.connection.execute(f"BEGIN; ALTER ROLE CURRENT_USER PASSWORD '{verifier(MINE, 1)}'")
    async with asyncio.timeout(20):
        new = await replaced(place, handle)
    assert await place.login(new) is not None
    assert not await own_password_opens(place, handle)


async def _quietly(work: object) -> None:
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InternalClientError):
        await work  # type: ignore[misc]


async def test_nothing_is_handed_over_while_a_standby_can_not_be_asked() -> None:
    """The thief may sit there."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        standby = Address(host="127.0.0.1", port=nobody.getsockname()[1])
        async with postgres_place(standbys=(standby,)) as place:
            handle, visit = await stolen(place)
            with pytest.raises(TargetDown):
                await replaced(place, handle)
            assert not await visit.answers()
            assert not await own_password_opens(place, handle)
