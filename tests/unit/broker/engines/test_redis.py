"""Redis beyond the contract: restarts, several nodes, what is sent, what is refused, what a check proves."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis as Client

from broker.engines.protocol import Issued, Lent, OwnAccount
from broker.engines.redis import open_engine
from broker.errors import NotPossible, NotYet, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from ca.errors import Conflict, NotFound, Problem, Unavailable
from ca.runtime.secret import Secret
from fakes.world import role
from servers.redis_place import RedisPlace, redis_place, settings_for


@pytest.fixture
async def place() -> AsyncIterator[RedisPlace]:
    """One real server."""
    async with redis_place() as found:
        yield found


def soon(place: RedisPlace) -> datetime:
    """A moment ahead."""
    return place.clock.now() + timedelta(seconds=60)


async def issue(place: RedisPlace, mark: str = "a") -> tuple[Handle, Issued]:
    """A principal that may log in."""
    handle = place.engine.plan(place.role, place.prefix + mark * 20)
    return handle, await place.engine.create(handle, place.role, soon(place), soon(place))


async def test_live_leases_outlive_a_power_cut_and_ended_ones_do_not(place: RedisPlace) -> None:
    """With an ACL file: what was handed over works on, what was ended or only shut stays so."""
    async with redis_place(aclfile=True, fresh=True) as kept:
        (live, issued), (over, gone), (shut, half) = [await issue(kept, mark) for mark in "abc"]
        await kept.engine.end_access(over)
        await kept.engine.clean_up(over)
        await kept.engine.end_access(shut)
        kept.server.stop(signal.SIGKILL)
        kept.server.start()
        await kept.clock.sleep(0.01)  # the loop learns that idle connections are gone
        assert list(await kept.engine.names(kept.prefix)) == [live.name, shut.name]
        kept.server.ask("SET", kept.room.key, "lamp")
        assert await kept.login(issued) is not None
        assert await kept.login(gone) is None
        assert await kept.login(half) is None
        assert (await kept.engine.claim("aaaaaaaa", "one")).incarnation == "one"


async def test_an_old_acl_file_brings_back_what_the_sweep_sees_and_ends() -> None:
    """Somebody restores yesterday's file."""
    async with redis_place(aclfile=True, fresh=True) as kept:
        handle, issued = await issue(kept)
        old = (kept.server.folder / "users.acl").read_text()
        await kept.engine.end_access(handle)
        await kept.engine.clean_up(handle)
        (kept.server.folder / "users.acl").write_text(old)
        kept.server.ask("ACL", "LOAD")
        assert await kept.login(issued) is not None
        assert list(await kept.engine.names(kept.prefix)) == [handle.name]
        assert (await kept.engine.end_access(handle)).sessions_cut == 1
        await kept.engine.clean_up(handle)
        assert await kept.login(issued) is None
        assert handle.name not in (kept.server.folder / "users.acl").read_text()


async def test_without_a_file_a_restart_forgets_and_the_lease_is_missed() -> None:
    """Renewing says so, and so does the list; ending what is gone is no error."""
    async with redis_place(fresh=True) as lost:
        handle, _ = await issue(lost)
        lost.server.stop(signal.SIGKILL)
        lost.server.start()
        await lost.clock.sleep(0.01)
        lost.server.ask("ACL", "SETUSER", lost.room.admin, "on", f">{lost.room.admin_password}", "+@all")
        assert not await lost.engine.names(lost.prefix)
        with pytest.raises(NotFound):
            await lost.engine.renew(handle, soon(lost))
        await lost.engine.end_access(handle)
        await lost.engine.clean_up(handle)


async def test_what_can_not_be_saved_is_neither_made_nor_called_ended(place: RedisPlace) -> None:
    """The server has no ACL file, and we were told that it has."""
    async with open_engine(settings_for(place.room, persist="aclfile"), Lent(clock=place.clock)) as engine:
        handle = engine.plan(place.role, place.prefix + "a" * 20)
        with pytest.raises(NotYet):
            await engine.create(handle, place.role, soon(place), soon(place))
        with pytest.raises(NotYet):
            await engine.end_access(handle)
        bad = [found.name for found in await engine.check([place.role], place.prefix) if not found.well]
    assert bad == [f"users outlive a restart {place.room.host}:{place.room.port}"]
    assert place.room.sessions() == []


async def test_every_node_is_ended_though_one_is_away() -> None:
    """What can be reached is shut at once; the ending is not called done."""
    async with redis_place(nodes=2) as place:
        handle, issued = await issue(place)
        name, password = handle.name, issued.secret["password"].reveal()
        place.others[0].stop(signal.SIGKILL)
        await place.clock.sleep(0.01)
        with pytest.raises(TargetDown):
            await place.engine.end_access(handle)
        assert await place.knock(name, password) is None
        assert await place.knock(name, password, place.others[1].port) is None
        place.others[0].start()
        said = [f">{place.room.admin_password}", "+acl", "+client", "+time", "+ping", "+info", "+multi", "+exec"]
        place.others[0].ask("ACL", "SETUSER", place.room.admin, "reset", "on", *said)
        assert (await place.engine.end_access(handle)).endpoints == 3


async def test_nothing_is_made_where_a_node_is_away() -> None:
    """It is down, and nothing was sent to anybody."""
    async with redis_place(nodes=1) as place:
        place.others[0].stop(signal.SIGKILL)
        await place.clock.sleep(0.01)
        with pytest.raises(TargetDown):
            await issue(place)
        assert place.room.principals() == set()


async def test_a_node_that_refuses_undoes_it_everywhere() -> None:
    """Our right to make users was taken away on the second."""
    async with redis_place(nodes=1) as place:
        place.others[0].ask("ACL", "SETUSER", place.room.admin, "-acl|setuser")
        with pytest.raises(Unavailable):
            await issue(place)
        assert place.room.principals() == set()


async def test_a_rule_the_server_does_not_know_leaves_nothing_and_tells_no_verifier(place: RedisPlace) -> None:
    """Its own words repeat the rule it stumbled over."""
    the_role = role(engine="redis", settings={"commands": ["+nosuchcommand"]})
    handle = place.engine.plan(the_role, place.prefix + "a" * 20)
    with pytest.raises(Problem) as refused:
        await place.engine.create(handle, the_role, soon(place), soon(place))
    assert "#" not in f"{refused.value!r}{refused.value.__cause__!r}"
    assert place.room.principals() == set()


async def test_a_replacement_never_opens_what_is_shut(place: RedisPlace) -> None:
    """It adds a password to what is off, and nobody gets it."""
    handle, _ = await issue(place)
    await place.engine.occupy(handle)
    with pytest.raises(Conflict):
        await place.engine.replace(handle, place.role, soon(place), soon(place))
    assert "off" in place.server.ask("ACL", "GETUSER", handle.name)


async def test_a_holder_can_not_do_more_than_its_role(place: RedisPlace) -> None:
    """Neither another key, nor another command, nor a password of its own."""
    handle, issued = await issue(place)
    password = issued.secret["password"].reveal()

    def asked(*command: str) -> str:
        return place.server.client(handle.name, password, *command).stdout

    assert place.room.admits(handle.name, password)
    for command in (("GET", "other"), ("SET", place.room.key, "x"), ("ACL", "SETUSER", handle.name, ">mine")):
        assert asked(*command).startswith("NOPERM")
    assert asked("CLIENT", "LIST").startswith("NOPERM")


async def test_clear_text_never_reaches_the_server(place: RedisPlace) -> None:
    """Neither its log nor its list of users holds the password."""
    _, issued = await issue(place)
    seen = place.server.log + "\n".join(place.server.ask("ACL", "LIST"))
    assert issued.secret["password"].reveal() not in seen


@pytest.mark.parametrize("said", [{"port": 1}, {"user": "nobody"}])
async def test_a_target_that_can_not_be_logged_in_to_is_down(place: RedisPlace, said: dict[str, Any]) -> None:
    """Found by the check, not at night; the text names the place and no password."""
    async with open_engine(settings_for(place.room, **said), Lent(clock=place.clock)) as engine:
        with pytest.raises(TargetDown) as refused:
            await engine.names(place.prefix)
        (finding,) = await engine.check([place.role], place.prefix)
    assert place.room.admin_password not in f"{refused.value!r}{refused.value.__cause__!r}"
    assert not finding.well


async def test_a_restart_in_the_middle_is_not_known_and_then_goes_on() -> None:
    """Idle connections of a server that died are found out before they are used for anything that counts."""
    async with redis_place(aclfile=True, fresh=True) as place:
        handle, _ = await issue(place)
        place.server.stop(signal.SIGKILL)
        with pytest.raises((TargetDown, OutcomeUnknown)):
            await place.engine.end_access(handle)
        with pytest.raises(TargetDown):
            await place.engine.end_access(handle)
        place.server.start()
        await place.engine.end_access(handle)
        await place.engine.clean_up(handle)


@pytest.fixture
async def keeping() -> AsyncIterator[RedisPlace]:
    """One real server with an ACL file."""
    async with redis_place(aclfile=True) as found:
        yield found


async def test_a_password_that_a_restart_would_bring_back_is_not_changed(place: RedisPlace) -> None:
    """Whoever knew the old one would be let in again."""
    with pytest.raises(NotPossible, match="aclfile"):
        await place.engine.change_password(place.room.admin, Secret("new"))


async def test_the_password_of_another_account_is_changed_tried_and_its_sessions_cut(keeping: RedisPlace) -> None:
    """A legacy account is handed over by its new password."""
    place = keeping
    place.server.ask("ACL", "SETUSER", "legacy", "reset", "on", ">old", f"~{place.room.key}", "+@read")
    visit = await place.knock("legacy", "old")
    for _ in range(2):
        await place.engine.change_password("legacy", Secret("new"))
    assert (await place.engine.opens("legacy", Secret("old")), await place.engine.opens("legacy", Secret("new"))) == (
        False,
        True,
    )
    assert await place.engine.cut_sessions("legacy") == 1
    assert visit is not None
    assert not await visit.answers()
    with pytest.raises(NotFound):
        await place.engine.change_password("nobody", Secret("new"))


async def test_two_installations_that_claim_at_once_never_both_have_it(place: RedisPlace) -> None:
    """At least one sees the other."""
    for _ in range(5):
        results = []
        for installation in ("aaaaaaaa", "bbbbbbbb"):
            try:
                results.append(await place.engine.claim(installation, "one"))
            except Conflict:
                continue
        assert len(results) == 1
        place.server.ask("ACL", "DELUSER", f"sojourn_claim_{results[0].installation}_one")


async def test_our_own_password_is_changed_under_our_own_hands(keeping: RedisPlace) -> None:
    """Everybody else who used it is cut off; what we open next uses the new one, and a wrong one is noticed at once."""
    place = keeping
    engine, me, new = place.engine, place.room.admin, Secret("n" * 32)
    assert isinstance(place.engine, OwnAccount)
    assert engine.account == me
    handle, _ = await issue(place)
    thief = Client(
        host=place.room.host, port=place.room.port, username=me, password=place.room.admin_password, protocol=2
    )
    assert await thief.ping()
    await engine.change_password(me, new)
    engine.log_in_with(new)
    assert await engine.cut_sessions(me) == 1
    await thief.aclose()
    assert not await engine.opens(me, Secret(place.room.admin_password))
    assert list(await engine.names(place.prefix)) == [handle.name]
    engine.log_in_with(Secret("wrong"))
    with pytest.raises(TargetDown, match="refused our own login"):
        await engine.names(place.prefix)
    engine.log_in_with(new)
    await engine.end_access(handle)
    await engine.clean_up(handle)
