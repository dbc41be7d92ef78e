"""Accounts that are not ours: rotated with a verifier, tried by a login, cut; also the one the engine itself uses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.engines.passwords import new_password
from broker.engines.postgres import open_engine
from broker.engines.protocol import Lent, OwnAccount, Rotating
from broker.errors import TargetDown
from ca.errors import Malformed, NotFound, Problem
from ca.runtime.secret import Secret
from servers.postgres import installations
from servers.postgres_place import PostgresPlace, postgres_place, reads, settings_for


@pytest.fixture(params=installations())
async def place(request: pytest.FixtureRequest) -> AsyncIterator[PostgresPlace]:
    """A real server of each version, and an admin that is no superuser."""
    async with postgres_place(installations()[request.param]) as found:
        yield found


async def legacy(place: PostgresPlace) -> tuple[str, Secret]:
    """An account somebody made by hand, which may read; the admin may manage it."""
    name, password = f"legacy_{secrets.token_hex(4)}", "it's old"
    owner = await place.server.connect(place.room.database)
    await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password.replace(chr(39), chr(39) * 2)}'")
    await owner.execute(f"GRANT {place.room.groups[0]} TO {name}")
    await owner.execute(f"GRANT {name} TO {place.room.admin} WITH ADMIN OPTION")
    await owner.close()
    return name, Secret(password)


async def test_a_changed_password_is_the_only_one_and_never_seen_by_the_server(place: PostgresPlace) -> None:
    """A verifier is sent; the same again changes nothing for whoever logs in."""
    name, old = await legacy(place)
    new = Secret(new_password())
    assert isinstance(place.engine, Rotating)
    assert await place.engine.opens(name, old)
    for _ in range(2):
        await place.engine.change_password(name, new)
        assert not await place.engine.opens(name, old)
        assert await place.engine.opens(name, new)
    assert new.reveal() not in place.server.log


async def test_its_sessions_are_cut_and_nobody_else_s(place: PostgresPlace) -> None:
    """Whoever logged in with the old password is out."""
    name, old = await legacy(place)
    sessions = [await place.room.connect(name, old.reveal()) for _ in range(2)]
    friend = await place.room.connect()
    assert await place.engine.cut_sessions(name) == 2
    assert not any([await reads(session) for session in sessions])
    assert await friend.fetchval("SELECT 1") == 1
    await friend.close()
    assert await place.engine.cut_sessions(name) == 0


async def test_what_is_not_there_or_can_not_be_a_password_is_told(place: PostgresPlace) -> None:
    """And a name can't leave its quotes."""
    good = Secret(new_password())
    for name in ("nobody_here", 'x" SUPERUSER; --', "a" * 63):
        with pytest.raises(NotFound):
            await place.engine.change_password(name, good)
        with pytest.raises(NotFound):
            await place.engine.cut_sessions(name)
        assert not await place.engine.opens(name, good)
    for name in ("", "a" * 64, "a\0b"):
        with pytest.raises(Malformed):
            await place.engine.change_password(name, good)
    for bad in ("", "a\nb", "pä", "x" * 1025):
        with pytest.raises(Malformed) as refused:
            await place.engine.change_password("nobody_here", Secret(bad))
        assert not bad or bad not in str(refused.value)


async def test_an_account_that_is_not_ours_to_change_stays_as_it_is(place: PostgresPlace) -> None:
    """The superuser's, for one."""
    with pytest.raises(Problem, match="42501"):
        await place.engine.change_password("postgres", Secret(new_password()))
    assert await place.engine.opens("postgres", Secret(place.server.password))


async def test_a_server_that_does_not_answer_judges_no_password(place: PostgresPlace) -> None:
    """Neither yes nor no."""
    async with open_engine(settings_for(place.room, port=1), Lent(clock=place.clock)) as engine:
        with pytest.raises(TargetDown):
            await engine.opens("anybody", Secret("x"))


async def test_a_role_without_login_or_past_its_end_is_not_opened(place: PostgresPlace) -> None:
    """The right password of somebody who may not come in; and one who may, but not into this database."""
    name, old = await legacy(place)
    owner = await place.server.connect(place.room.database)
    await owner.execute(f"ALTER ROLE {name} VALID UNTIL '2001-01-01'")
    assert not await place.engine.opens(name, old)
    await owner.execute(f"ALTER ROLE {name} VALID UNTIL 'infinity' NOLOGIN")
    assert not await place.engine.opens(name, old)
    await owner.execute(f"ALTER ROLE {name} LOGIN")
    await owner.execute(f"REVOKE CONNECT ON DATABASE {place.room.database} FROM PUBLIC")
    await owner.execute(f"GRANT CONNECT ON DATABASE {place.room.database} TO {place.room.admin}")
    assert await place.engine.opens(name, old)
    assert not await place.engine.opens(name, Secret("another"))
    await owner.close()


async def test_our_own_password_is_changed_under_our_own_hands(place: PostgresPlace) -> None:
    """Everybody else who used it is cut off; what we have open goes on, and what we open next uses the new one."""
    engine, me = place.engine, place.room.admin
    assert isinstance(place.engine, OwnAccount)
    assert engine.account == me
    thief = await place.room.connect()
    new = Secret(new_password())
    await engine.change_password(engine.account, new)
    engine.log_in_with(new)
    assert await engine.cut_sessions(engine.account) == 1
    assert not await reads(thief)
    assert not await engine.opens(me, Secret(place.room.admin_password))
    handles = [engine.plan(place.role, f"{place.prefix}{number:020d}") for number in range(6)]
    until = place.clock.now() + timedelta(seconds=60)
    issued = await asyncio.gather(*(engine.create(handle, place.role, until, until) for handle in handles))
    assert all([await place.login(one) for one in issued])
    for handle in handles:
        await engine.end_access(handle)
        await engine.clean_up(handle)


async def test_connections_made_with_the_former_password_are_given_up(place: PostgresPlace) -> None:
    """After `log_in_with` none of them is used again, so a password that does not open is noticed at once."""
    engine = place.engine
    assert not await engine.names("sj_nobody00_")
    engine.log_in_with(Secret("wrong"))
    with pytest.raises(TargetDown, match="refused our own login"):
        await engine.names("sj_nobody00_")
    engine.log_in_with(Secret(place.room.admin_password))
    assert not await engine.names("sj_nobody00_")
