"""PostgreSQL beyond the contract: what is sent, what is refused, what a check proves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.engines.postgres import open_engine
from broker.engines.protocol import Lent
from broker.errors import ClockUntrusted, TargetDown
from ca.errors import Malformed, Problem
from fakes.clock import ManualClock
from fakes.world import role
from servers.postgres_place import PostgresPlace, postgres_place, settings_for


@pytest.fixture
async def place() -> AsyncIterator[PostgresPlace]:
    """One real server."""
    async with postgres_place() as found:
        yield found


async def test_clear_text_never_reaches_the_server(place: PostgresPlace) -> None:
    """With every statement logged, failed ones included, the log holds verifiers only."""
    handle = place.engine.plan(place.role, place.prefix + "a" * 20)
    soon = place.clock.now() + timedelta(seconds=60)
    issued = await place.engine.create(handle, place.role, soon, soon)
    with pytest.raises(Problem):
        await place.engine.create(handle, place.role, soon, soon)
    new = await place.engine.replace(handle, place.role, soon, soon)
    log = place.server.log
    assert handle.name in log
    assert all(one.secret["password"].reveal() not in log for one in (issued, new))


async def test_only_groups_are_given(place: PostgresPlace) -> None:
    """No right of its own, no power, no `role` setting, and a limit on sessions."""
    handle = place.engine.plan(place.role, place.prefix + "a" * 20)
    soon = place.clock.now() + timedelta(seconds=60)
    await place.engine.create(handle, place.role, soon, soon)
    admin = await place.room.connect()
    row = await admin.fetchrow(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS powers, rolconfig,"
        " rolconnlimit, (SELECT count(*) FROM pg_shdepend WHERE refobjid = r.oid AND deptype = 'a') AS rights"
        " FROM pg_roles r WHERE rolname = $1",
        handle.name,
    )
    await admin.close()
    assert row is not None
    assert (row["powers"], row["rolconfig"], row["rolconnlimit"], row["rights"]) == (False, None, 10, 0)


@pytest.mark.parametrize("kind", ["scram-4096", "scram-few"])
async def test_each_kind_of_secret_logs_in(place: PostgresPlace, kind: str) -> None:
    """The kind stands in the handle, and the driver accepts it."""
    the_role = role(settings={"groups": [place.room.groups[0]], "secret_kind": kind})
    handle = place.engine.plan(the_role, place.prefix + "a" * 20)
    soon = place.clock.now() + timedelta(seconds=60)
    issued = await place.engine.create(handle, the_role, soon, soon)
    assert handle.facts["secret_kind"] == kind
    assert await place.login(issued) is not None
    assert issued.secret["url"].reveal().startswith(f"postgresql://{handle.name}:")


@pytest.mark.parametrize(
    "wrong", [{}, {"groups": []}, {"groups": ["a"], "secret_kind": "plain"}, {"groups": ["a"], "x": 1}]
)
async def test_a_role_that_makes_no_sense_is_refused_when_planned(
    place: PostgresPlace, wrong: dict[str, object]
) -> None:
    """Before anything is intended."""
    with pytest.raises(Malformed, match="groups"):
        place.engine.plan(role(settings=wrong), place.prefix + "a" * 20)


async def test_a_server_that_is_not_there_is_down(place: PostgresPlace) -> None:
    """Nothing was sent; the text names the place and no password."""
    settings = settings_for(place.room, port=1)
    async with open_engine(settings, Lent(clock=place.clock)) as engine:
        with pytest.raises(TargetDown, match=r"127\.0\.0\.1:1`") as refused:
            await engine.names(place.prefix)
        assert (
            place.room.admin_password
            not in f"{refused.value!r}{refused.value.__cause__!r}{refused.value.__context__!r}"
        )


async def test_a_refused_login_of_ours_is_down_too(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password of the admin changes nothing at the target."""
    settings = settings_for(place.room)
    monkeypatch.setenv(settings.password.name, "wrong")
    async with open_engine(settings, Lent(clock=place.clock)) as engine:
        with pytest.raises(TargetDown, match="refused our own login"):
            await engine.names(place.prefix)


async def test_the_end_is_written_in_the_targets_time_and_a_clock_too_far_off_stops_grants(
    place: PostgresPlace,
) -> None:
    """Our clock is months away from the server's: nothing is granted; within the limit the difference is added."""
    clock = ManualClock()
    far = settings_for(place.room)
    soon = clock.now() + timedelta(seconds=60)
    async with open_engine(far, Lent(clock=clock)) as engine:
        handle = engine.plan(place.role, place.prefix + "a" * 20)
        with pytest.raises(ClockUntrusted):
            await engine.create(handle, place.role, soon, soon)
    near = settings_for(place.room, clock_limit="90000d")
    async with open_engine(near, Lent(clock=clock)) as engine:
        issued = await engine.create(handle, place.role, soon, soon)
        assert await place.login(issued) is not None


async def test_a_good_target_is_proved_by_a_login_and_keeps_nothing(place: PostgresPlace) -> None:
    """Every finding is well and the probe is gone."""
    findings = await place.engine.check([place.role], place.prefix)
    assert [finding for finding in findings if not finding.well] == []
    assert findings[-1].name == f"role {place.role.full_name}"
    assert not await place.engine.names(place.prefix)


async def test_a_check_names_the_statement_that_mends(place: PostgresPlace) -> None:
    """Rights the admin lacks, a group that may create, a group that is not there."""
    owner = await place.server.connect(place.room.database)
    await owner.execute(f"REVOKE pg_signal_backend FROM {place.room.admin}")
    await owner.execute(f"GRANT CREATE ON SCHEMA public TO {place.room.groups[0]}")
    await owner.close()
    roles = [place.role, role(name="ghost", settings={"groups": ["nobody_here"]})]
    bad = {finding.name: finding.fix for finding in await place.engine.check(roles, place.prefix) if not finding.well}
    assert bad["may end sessions"] == f'GRANT pg_signal_backend TO "{place.room.admin}";'
    assert "REVOKE CREATE" in str(bad[f"group {place.room.groups[0]} creates nothing"])
    assert bad["group nobody_here"] == 'CREATE ROLE "nobody_here" NOLOGIN;'


async def test_a_check_of_a_dead_server_is_a_finding(place: PostgresPlace) -> None:
    """`doctor` gets an answer, not an exception."""
    async with open_engine(settings_for(place.room, port=1), Lent(clock=place.clock)) as engine:
        (finding,) = await engine.check([place.role], place.prefix)
    assert (finding.name, finding.well) == ("reachable", False)
