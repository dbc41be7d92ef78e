"""MariaDB beyond the contract: what is sent, what is left half-way, what is refused, what a check proves."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from broker.engines.mysql import open_engine, principal
from broker.engines.mysql.verifiers import identified
from broker.engines.protocol import Issued, Lent, OwnAccount
from broker.errors import ClockUntrusted, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from ca.errors import Conflict, NotFound, Unavailable
from ca.runtime.secret import Secret
from fakes.clock import ManualClock
from fakes.wire_tap import tapped
from fakes.world import role
from servers.mariadb_place import MariadbPlace, mariadb_place, settings_for


@pytest.fixture
async def place() -> AsyncIterator[MariadbPlace]:
    """One real server."""
    async with mariadb_place() as found:
        yield found


def soon(place: MariadbPlace) -> datetime:
    """A moment ahead."""
    return place.clock.now() + timedelta(seconds=60)


async def issue(place: MariadbPlace, mark: str = "a") -> tuple[Handle, Issued]:
    """A principal that may log in."""
    handle = place.engine.plan(place.role, place.prefix + mark * 20)
    return handle, await place.engine.create(handle, place.role, soon(place), soon(place))


async def test_clear_text_never_reaches_the_server(place: MariadbPlace) -> None:
    """With every statement logged, failed ones included, the log holds verifiers only."""
    handle, issued = await issue(place)
    with pytest.raises(Conflict):
        await issue(place)
    new = await place.engine.replace(handle, place.role, soon(place), soon(place))
    log = place.server.log
    assert f"CREATE USER '{handle.name}'" in log
    assert all(one.secret["password"].reveal() not in log for one in (issued, new))


async def test_a_grant_that_is_refused_leaves_nothing(place: MariadbPlace) -> None:
    """The user was made by then: it is dropped again."""
    the_role = role(engine="mysql", settings={"privileges": {"nobodys": ["SELECT"]}})
    handle = place.engine.plan(the_role, place.prefix + "a" * 20)
    with pytest.raises(Unavailable, match="1044"):
        await place.engine.create(handle, the_role, soon(place), soon(place))
    assert place.room.principals() == set()


@pytest.mark.parametrize("mariadb", [True, False], ids=["mariadb", "as for mysql"])
async def test_what_is_half_made_lets_nobody_in(place: MariadbPlace, *, mariadb: bool) -> None:
    """A server that died after any of the statements but the last has a user that is locked."""
    handle = place.engine.plan(place.role, place.prefix + "a" * 20)
    granted = principal.grants(handle.name, None, {place.room.schema: ("SELECT",)}, mariadb=True)
    clause = identified("native", "known")
    said: dict[str, Any] = {"deadline": soon(place), "granted": granted, "sessions": 3, "tls": False}
    whole = principal.create(handle.name, clause, mariadb=mariadb, **said)
    statements = whole.split(";\n")
    for count in range(1 if mariadb else 3, len(statements)):
        place.server.ask(";\n".join(statements[:count]))
        assert not place.room.admits(handle.name, "known")
        place.server.ask(f"DROP USER '{handle.name}'")
    place.server.ask(whole)
    assert place.room.admits(handle.name, "known")


@pytest.mark.parametrize("heard", [False, True], ids=["not done", "done"])
async def test_a_create_whose_answer_is_lost_is_not_known_and_can_be_settled(
    place: MariadbPlace, *, heard: bool
) -> None:
    """The wire is cut at the statement, before or after the server hears it."""
    async with tapped(place.room.host, place.room.port) as tap:
        settings = settings_for(place.room, port=tap.address[1])
        async with open_engine(settings, Lent(clock=place.clock)) as engine:
            handle = engine.plan(place.role, place.prefix + "a" * 20)
            await engine.names(place.prefix)
            tap.cut = (b"CREATE USER", heard)
            with pytest.raises(OutcomeUnknown):
                await engine.create(handle, place.role, soon(place), soon(place))
            await engine.occupy(handle)
            with pytest.raises(Conflict):
                await engine.create(handle, place.role, soon(place), soon(place))
            await engine.end_access(handle)
            await engine.clean_up(handle)
    assert place.room.principals() == set()
    assert (f"CREATE USER '{handle.name}'@'%' IDENTIFIED" in place.server.log) or not heard


async def test_what_mysql_is_sent_is_judged_by_the_server_too(place: MariadbPlace) -> None:
    """The form without EXECUTE IMMEDIATE, which MariaDB reads as well."""
    said: dict[str, Any] = {"granted": [], "sessions": 3, "tls": False, "mariadb": False}
    late = principal.create("sj_late", identified("native", "x"), deadline=soon(place) - timedelta(days=1), **said)
    assert "sojourn_too_late" in place.server.client("root", place.server.password, late).stderr
    assert "sj_late" not in place.room.principals()


async def test_a_lease_may_open_as_many_sessions_as_its_role_says(place: MariadbPlace) -> None:
    """One more is refused."""
    the_role = role(engine="mysql", settings={"privileges": {place.room.schema: ["SELECT"]}, "sessions": 2})
    handle = place.engine.plan(the_role, place.prefix + "a" * 20)
    issued = await place.engine.create(handle, the_role, soon(place), soon(place))
    assert [await place.login(issued) is not None for _ in range(3)] == [True, True, False]


async def test_a_user_of_the_same_name_at_another_host_ends_with_it(place: MariadbPlace) -> None:
    """Somebody made one by hand: it is the same name, and so ours."""
    handle, issued = await issue(place)
    place.server.ask(f"CREATE USER '{handle.name}'@'127.0.0.1' IDENTIFIED BY 'other'")
    assert place.room.admits(handle.name, "other")
    await place.engine.end_access(handle)
    assert not place.room.admits(handle.name, "other")
    assert await place.login(issued) is None
    await place.engine.clean_up(handle)
    assert place.room.principals() == set()


async def test_a_grant_on_one_schema_opens_no_other_of_a_similar_name(place: MariadbPlace) -> None:
    """`_` in the name of a schema is no pattern."""
    similar = place.room.schema.replace("_", "x")
    place.server.ask(f"CREATE DATABASE {similar}; CREATE TABLE {similar}.t (id INT);")
    _, issued = await issue(place)
    name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
    assert place.server.client(name, password, f"SELECT * FROM {similar}.t").returncode != 0
    place.server.ask(f"DROP DATABASE {similar}")


async def test_an_endpoint_that_can_not_be_asked_is_not_verified(place: MariadbPlace) -> None:
    """A replica may hold a session of its own: without its word the door is shut, and the lease has not ended."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        replica = {"host": "127.0.0.1", "port": nobody.getsockname()[1]}
        settings = settings_for(place.room, replicas=(replica,))
        async with open_engine(settings, Lent(clock=place.clock)) as engine:
            handle, issued = await issue(place)
            with pytest.raises(TargetDown):
                await engine.end_access(handle)
            assert await place.login(issued) is None


async def test_who_can_not_see_the_sessions_of_others_verifies_nothing(place: MariadbPlace) -> None:
    """Without PROCESS the list would be empty of everybody but us."""
    handle, issued = await issue(place)
    visit = await place.login(issued)
    place.server.ask(f"REVOKE PROCESS ON *.* FROM {place.room.admin}; KILL USER {place.room.admin};")
    async with open_engine(settings_for(place.room), Lent(clock=place.clock)) as engine:
        with pytest.raises(Unavailable, match="lacks a right"):
            await engine.end_access(handle)
    place.server.ask(f"GRANT PROCESS ON *.* TO {place.room.admin}")
    async with open_engine(settings_for(place.room), Lent(clock=place.clock)) as engine:
        await engine.end_access(handle)
    assert visit is not None
    assert not await visit.answers()


async def test_a_session_on_a_replica_is_cut_too(place: MariadbPlace) -> None:
    """The same server by another address: what it shows is looked at again, and both are counted."""
    replica = {"host": place.room.host, "port": place.room.port}
    async with open_engine(settings_for(place.room, replicas=(replica,)), Lent(clock=place.clock)) as engine:
        handle, issued = await issue(place)
        assert await place.login(issued) is not None
        ended = await engine.end_access(handle)
    assert (ended.sessions_cut, ended.endpoints) == (1, 2)


async def test_a_restart_in_the_middle_is_not_known_and_then_goes_on() -> None:
    """Users are durable: the ending goes on where it was."""
    async with mariadb_place(fresh=True) as place:
        handle, issued = await issue(place)
        place.server.stop(signal.SIGKILL)
        for _ in range(2):
            with pytest.raises((TargetDown, OutcomeUnknown)):
                await place.engine.end_access(handle)
        place.server.start()
        assert await place.login(issued) is not None
        await place.engine.end_access(handle)
        await place.engine.clean_up(handle)
        assert place.room.principals() == set()


@pytest.mark.parametrize("said", [{"port": 1}, {"user": "nobody"}])
async def test_a_target_that_can_not_be_logged_in_to_is_down(place: MariadbPlace, said: dict[str, Any]) -> None:
    """Found by the check, not at night; the text names the place and no password."""
    async with open_engine(settings_for(place.room, **said), Lent(clock=place.clock)) as engine:
        with pytest.raises(TargetDown) as refused:
            await engine.names(place.prefix)
        (finding,) = await engine.check([place.role], place.prefix)
    assert place.room.admin_password not in f"{refused.value!r}{refused.value.__cause__!r}{refused.value.__context__!r}"
    assert not finding.well


async def test_a_check_names_the_statement_that_mends(place: MariadbPlace) -> None:
    """Rights the admin lacks, a role that is not there, one that has power over the server."""
    place.server.ask(f"REVOKE PROCESS, CONNECTION ADMIN ON *.* FROM {place.room.admin};")
    place.server.ask(f"GRANT FILE ON *.* TO {place.room.reader};")
    roles = [role(name=name, engine="mysql", settings={"role": name}) for name in ("ghost", place.room.reader)]
    bad = {found.name: str(found.fix) for found in await place.engine.check(roles, place.prefix) if not found.well}
    assert bad["may process"] == f"GRANT PROCESS ON *.* TO '{place.room.admin}'@'%';"
    assert bad["may end sessions"] == f"GRANT CONNECTION ADMIN ON *.* TO '{place.room.admin}'@'%';"
    assert bad["may set a default role"] == f"GRANT UPDATE ON mysql.* TO '{place.room.admin}'@'%';"
    assert bad["role ghost"] == "CREATE ROLE `ghost`;"
    assert bad[f"role {place.room.reader} only holds rights in schemas"].startswith("REVOKE FILE ON *.* FROM")
    assert place.room.principals() == set()


async def test_a_probe_that_can_not_be_granted_is_a_finding(place: MariadbPlace) -> None:
    """What it needs WITH GRANT OPTION is said."""
    the_role = role(engine="mysql", settings={"privileges": {"nobodys": ["SELECT"]}})
    (bad,) = [found for found in await place.engine.check([the_role], place.prefix) if not found.well]
    assert bad.fix == f"GRANT SELECT ON `nobodys`.* TO '{place.room.admin}'@'%' WITH GRANT OPTION;"
    assert place.room.principals() == set()


async def test_a_clock_too_far_off_stops_grants_and_no_ending(place: MariadbPlace) -> None:
    """Our clock is months away from the server's; within the limit the difference is added."""
    clock = ManualClock()
    then = clock.now() + timedelta(seconds=60)
    handle, _ = await issue(place)
    async with open_engine(settings_for(place.room), Lent(clock=clock)) as engine:
        with pytest.raises(ClockUntrusted):
            await engine.create(handle, place.role, then, then)
        await engine.end_access(handle)
        await engine.clean_up(handle)
    async with open_engine(settings_for(place.room, clock_limit="90000d"), Lent(clock=clock)) as engine:
        assert await place.login(await engine.create(handle, place.role, then, then)) is not None


@pytest.mark.parametrize("kind", ["native", "ed25519"])
async def test_the_password_of_another_account_is_changed_tried_and_its_sessions_cut(kind: str) -> None:
    """A legacy account, which exists for two hosts, is handed over by its new password."""
    old = "o" * 32
    async with mariadb_place(secret_kind=kind) as place:
        for host in ("%", "127.0.0.1"):
            place.server.ask(
                f"CREATE USER 'legacy'@'{host}' IDENTIFIED BY '{old}'; GRANT SELECT ON *.* TO legacy@'{host}'"
            )
        visit, new = await place.knock("legacy", old), Secret("n" * 32)
        for _ in range(2):
            await place.engine.change_password("legacy", new)
        tried = [await place.engine.opens("legacy", secret) for secret in (Secret(old), new)]
        assert tried == [False, True]
        assert await place.engine.cut_sessions("legacy") >= 1  # what tried the password may not have left yet
        assert visit is not None
        assert not await visit.answers()
        with pytest.raises(NotFound):
            await place.engine.change_password("nobody", new)
        place.server.ask("DROP USER legacy@'%', legacy@'127.0.0.1'")


async def test_our_own_password_is_changed_under_our_own_hands(place: MariadbPlace) -> None:
    """Everybody else who used it is cut off; what we open next uses the new one, and a wrong one is noticed at once."""
    engine, me, new = place.engine, place.room.admin, Secret("n" * 32)
    assert isinstance(place.engine, OwnAccount)
    assert engine.account == me
    handle, _ = await issue(place)
    thief = await place.knock(me, place.room.admin_password)
    assert thief is not None
    await engine.change_password(me, new)
    engine.log_in_with(new)
    assert await engine.cut_sessions(me) >= 1
    assert not await engine.opens(me, Secret(place.room.admin_password))
    assert list(await engine.names(place.prefix)) == [handle.name]
    engine.log_in_with(Secret("wrong"))
    with pytest.raises(TargetDown, match="refused our own login"):
        await engine.names(place.prefix)
    engine.log_in_with(new)
    await engine.end_access(handle)
    await engine.clean_up(handle)
