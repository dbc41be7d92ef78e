"""What a check finds, and the statement that mends it; on every version that is here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from broker.engines.postgres import open_engine
from broker.engines.postgres.principal import own_name
from broker.engines.protocol import Finding, Lent
from ca.errors import Malformed
from fakes.wire_tap import tapped
from fakes.world import role
from servers.postgres import installations
from servers.postgres_place import PostgresPlace, postgres_place, settings_for

ODD = """gr"oup's $sojourn$; DROP TABLE orders; -- %s"""
"""A name of 46 bytes that would end every quote there is."""


@pytest.fixture(params=installations())
async def place(request: pytest.FixtureRequest) -> AsyncIterator[PostgresPlace]:
    """A real server of each version, and an admin that is no superuser."""
    async with postgres_place(installations()[request.param]) as found:
        yield found


async def owned(place: PostgresPlace, *statements: str) -> None:
    """By the superuser, in the room's database."""
    owner = await place.server.connect(place.room.database)
    try:
        for statement in statements:
            await owner.execute(statement)
    finally:
        await owner.close()


async def bad(place: PostgresPlace, engine: Any = None, **settings: Any) -> Mapping[str, Finding]:
    """What is not well, by name."""
    the_role = role(engine="postgres", settings={"groups": [place.room.groups[0]], **settings})
    found = await (engine or place.engine).check([the_role], place.prefix)
    return {one.name: one for one in found if not one.well}


@pytest.mark.parametrize("kind", ["scram-4096", "scram-few"])
async def test_each_kind_is_proved_by_a_login(place: PostgresPlace, kind: str) -> None:
    """The finding says which kind it was."""
    the_role = role(engine="postgres", settings={"groups": [place.room.groups[0]], "secret_kind": kind})
    findings = await place.engine.check([the_role], place.prefix)
    assert [one for one in findings if not one.well] == []
    assert findings[-1].detail.startswith(f"{kind}: created, logged in")
    assert not await place.engine.names(place.prefix)


async def test_a_group_that_may_become_more_is_refused(place: PostgresPlace) -> None:
    """Its own attributes are harmless; what it is a member of is not."""
    group = place.room.groups[0]
    await owned(place, f"GRANT pg_execute_server_program TO {group}")
    found = (await bad(place))[f"group {group} only holds rights"]
    assert "pg_execute_server_program" in found.detail
    assert f'REVOKE "pg_execute_server_program" FROM "{group}";' in str(found.fix)
    await owned(place, f"REVOKE pg_execute_server_program FROM {group}", f"CREATE ROLE x_{group} CREATEDB")
    await owned(place, f"GRANT x_{group} TO {group}")
    assert f"x_{group}" in (await bad(place))[f"group {group} only holds rights"].detail
    await owned(place, f"DROP ROLE x_{group}")
    assert not await bad(place)


async def test_what_public_may_create_in_any_of_the_databases_is_found(place: PostgresPlace) -> None:
    """As on a PostgreSQL 14, in the schema `public` of a database no role names."""
    other = f"{place.room.database}_b"
    group = place.room.groups[0]
    await owned(place, f"CREATE DATABASE {other} TEMPLATE sojourn_template")
    said = settings_for(place.room, databases=(other,))
    async with open_engine(said, Lent(clock=place.clock)) as engine:
        assert not await bad(place, engine)
        visitor = await place.server.connect(other)
        await visitor.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        await visitor.execute(f"GRANT CREATE ON DATABASE {other} TO {group}")
        await visitor.close()
        found = (await bad(place, engine))[f"group {group} creates nothing in {other}"]
    assert f'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC, "{group}";' in str(found.fix)
    assert f'REVOKE CREATE ON DATABASE "{other}" FROM PUBLIC, "{group}";' in str(found.fix)


async def test_a_role_may_be_for_another_database(place: PostgresPlace) -> None:
    """Its agents are sent there, the probe too, and what they own there goes with them."""
    other = f"{place.room.database}_c"
    await owned(place, f"CREATE DATABASE {other} TEMPLATE sojourn_template")
    said = settings_for(place.room, databases=(other,))
    async with open_engine(said, Lent(clock=place.clock)) as engine:
        the_role = role(engine="postgres", settings={"groups": [place.room.groups[0]], "database": other})
        assert not await bad(place, engine, database=other)
        handle = engine.plan(the_role, place.prefix + "a" * 20)
        until = place.clock.now() + timedelta(seconds=60)
        issued = await engine.create(handle, the_role, until, until)
        assert issued.fields["database"] == other
        assert issued.secret["url"].reveal().endswith(f"/{other}")
        for database in (place.room.database, other):
            owner = await place.server.connect(database)
            await owner.execute(f'CREATE SCHEMA planted AUTHORIZATION "{handle.name}"')
            await owner.close()
        await engine.end_access(handle)
        await engine.clean_up(handle)
        assert not await engine.names(place.prefix)
        with pytest.raises(Malformed, match="none of `databases`"):
            engine.plan(
                role(engine="postgres", settings={"groups": ["a"], "database": "elsewhere"}), place.prefix + "a"
            )


async def test_a_database_that_is_not_there_is_a_finding(place: PostgresPlace) -> None:
    """No exception, and no probe."""
    async with open_engine(settings_for(place.room, databases=("nowhere",)), Lent(clock=place.clock)) as engine:
        found = await bad(place, engine)
    assert "3D000" in found["reachable"].detail


@pytest.mark.parametrize("name", [ODD, "ü" * 31 + "x", "x" * 63], ids=["quotes", "63 bytes in 32 letters", "63 bytes"])
async def test_a_group_may_have_any_name_postgres_keeps(place: PostgresPlace, name: str) -> None:
    """It is quoted wherever it stands; what is made with it is made, ended and dropped."""
    quoted = '"' + name.replace('"', '""') + '"'
    await owned(
        place,
        f"CREATE ROLE {quoted} NOLOGIN",
        f"GRANT SELECT ON orders TO {quoted}",
        f"GRANT {quoted} TO {place.room.admin} WITH ADMIN OPTION",
    )
    try:
        assert not await bad(place, groups=[name])
    finally:
        await owned(place, f"DROP OWNED BY {quoted}", f"DROP ROLE {quoted}")


@pytest.mark.parametrize("name", ["", "a" * 64, "A", "a-b", "a$sojourn$b", 'a"b', "a'b", "a b", "1a", "ä", "a\0"])
def test_a_principal_has_a_plain_name(name: str) -> None:
    """Ours are hashes; anything else never reaches a statement."""
    with pytest.raises(Malformed):
        own_name(name)
    assert own_name("sj_" + "a" * 60)


@pytest.mark.parametrize("group", ["", "a" * 64, "ü" * 32, "a\0b"])
async def test_a_group_postgres_could_not_keep_is_refused_when_planned(place: PostgresPlace, group: str) -> None:
    """It would be cut to another name."""
    with pytest.raises(Malformed):
        place.engine.plan(role(engine="postgres", settings={"groups": [group]}), place.prefix + "a" * 20)


async def test_a_pooler_in_between_is_found(place: PostgresPlace) -> None:
    """Cutting a session there would prove nothing, and no probe is tried through it."""
    async with tapped(place.room.host, place.room.port) as tap:
        tap.pooling = True
        async with open_engine(settings_for(place.room, port=tap.address[1]), Lent(clock=place.clock)) as engine:
            found = await engine.check([place.role], place.prefix)
    assert [one.name for one in found if not one.well] == ["direct"]
    assert not any(one.name.startswith("role ") for one in found)
    assert not await place.engine.names(place.prefix)
