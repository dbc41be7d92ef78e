"""The engine rabbitmq on a real server: what stops half-way, what is in between, what a server that fails is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.engines.protocol import Issued, Lent
from broker.engines.rabbitmq import open_engine, principal
from broker.engines.rabbitmq.claim import PREFIX
from broker.engines.rabbitmq.ending import nodes
from broker.engines.rabbitmq.reach import _LARGEST, open_reach
from broker.engines.rabbitmq.settings import role_settings
from broker.errors import NotYet, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from ca.errors import Conflict, NotFound, Problem, Unavailable
from ca.runtime.secret import Secret
from fakes.world import role
from servers.rabbitmq_place import RabbitPlace, rabbitmq_place, settings_for


@pytest.fixture
async def place() -> AsyncIterator[RabbitPlace]:
    """A room of a real RabbitMQ."""
    async with rabbitmq_place() as found:
        yield found


async def issue(place: RabbitPlace, **settings: Any) -> tuple[Handle, Issued]:
    """A principal that may log in."""
    the_role = replace(place.role, settings={**place.role.settings, **settings})
    handle = place.engine.plan(the_role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    return handle, await place.engine.create(handle, the_role, until, until)


async def test_patterns_are_of_whole_names(place: RabbitPlace) -> None:
    """What a role may name, and nothing that only holds or precedes it."""
    _, issued = await issue(place)
    visit = await place.login(issued)
    assert visit is not None
    asked = ("orders", "orders-7", "orders-x", "my-orders", "ORDERS", "other")
    answered = [name for name in asked if await asyncio.to_thread(visit.guest.declare, name)]
    assert answered == ["orders", "orders-7"]


async def test_connections_are_counted(place: RabbitPlace) -> None:
    """`sessions` of the role is the server's own limit."""
    _, issued = await issue(place, sessions=2)
    visits = [await place.login(issued) for _ in range(3)]
    assert [visit is not None for visit in visits] == [True, True, False]


async def test_a_user_without_its_permissions_opens_nothing(place: RabbitPlace) -> None:
    """What is left when a create stops after its first request."""
    async with open_reach(settings_for(place.room)) as reach:
        await principal.put_user(reach, place.prefix + "half", "secret")
    guest = place.guest()
    assert guest.authenticate(place.prefix + "half", "secret")
    assert not guest.enter(place.room.vhost)


async def test_permissions_come_last_and_a_missing_virtual_host_is_a_refusal(place: RabbitPlace) -> None:
    """The user is there without power, and is cleaned up like any other."""
    gone = [{"vhost": place.room.vhost, "read": "a"}, {"vhost": "nowhere", "read": "a"}]
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    with pytest.raises(Unavailable, match="refused with 400"):
        await issue(place, permissions=gone)
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)
    assert not place.room.principals()


async def test_a_late_call_stops_before_its_next_request(place: RabbitPlace) -> None:
    """Frozen between two requests, it gives nobody anything when it thaws."""
    looks = iter([True, True, False])

    def in_time() -> None:
        if not next(looks):
            raise Unavailable("too late")

    name = place.prefix + "late"
    async with open_reach(settings_for(place.room)) as reach:
        await principal.put_user(reach, name, "secret")
        in_time()
        with pytest.raises(Unavailable):
            await principal.furnish(reach, name, role_settings(place.role), in_time)
        assert await principal.permitted(reach, name) == []


async def test_the_server_has_seen_no_secret(place: RabbitPlace) -> None:
    """Neither in its log nor in what it exports."""
    handle, issued = await issue(place)
    assert await place.login(issued) is not None
    secret = issued.secret["password"].reveal()
    assert secret not in place.room.server.log
    exported = place.room.server.ask("GET", "definitions")
    assert handle.name in str(exported)
    assert secret not in str(exported)


async def test_of_two_claims_at_once_never_both_win(place: RabbitPlace) -> None:
    """Each looked before the other put its own."""
    ids = [f"{number:08d}" for number in range(6)]

    async def attempt(installation: str) -> bool:
        try:
            await place.engine.claim(installation, "one")
        except Conflict:
            return False
        return True

    won = [one for one, yes in zip(ids, await asyncio.gather(*map(attempt, ids)), strict=True) if yes]
    assert len(won) <= 1
    async with open_reach(settings_for(place.room)) as reach:
        assert set(await principal.names(reach, PREFIX)) <= {PREFIX + one for one in won}


async def test_an_established_claim_is_not_taken_back_because_of_another(place: RabbitPlace) -> None:
    """Somebody put a second one beside it: both refuse to work, and an operator decides."""
    await place.engine.claim("aaaaaaaa", "one")
    async with open_reach(settings_for(place.room)) as reach:
        await principal.put_user(reach, PREFIX + "bbbbbbbb", None)
        with pytest.raises(Conflict, match="bbbbbbbb"):
            await place.engine.claim("aaaaaaaa", "one")
        assert await principal.is_there(reach, PREFIX + "aaaaaaaa")


async def test_an_account_of_others_is_rotated(place: RabbitPlace) -> None:
    """It keeps its tags, and the old password opens nothing."""
    place.room.server.ask("PUT", "users", "legacy", body={"password": "old", "tags": "monitoring"})
    try:
        assert await place.engine.opens("legacy", Secret("old"))
        await place.engine.change_password("legacy", Secret("new"))
        assert not await place.engine.opens("legacy", Secret("old"))
        assert await place.engine.opens("legacy", Secret("new"))
        assert await place.engine.cut_sessions("legacy") == 0
        assert place.room.server.ask("GET", "users", "legacy")["tags"] == ["monitoring"]
    finally:
        place.room.server.ask("DELETE", "users", "legacy")
    with pytest.raises(NotFound):
        await place.engine.change_password("legacy", Secret("x"))


async def test_what_our_login_needs_is_found_missing(place: RabbitPlace) -> None:
    """Before anything is handed over by a target that is set up wrong."""
    place.room.server.ask("PUT", "users", place.room.admin, body={"password": "other", "tags": "administrator"})
    findings = await place.engine.check([place.role], place.prefix)
    assert [found.name for found in findings if not found.well] == ["reachable"]
    nowhere = role(engine="rabbitmq", settings={"permissions": [{"vhost": "nowhere"}]})
    async with rabbitmq_place() as mended:
        findings = await mended.engine.check([nowhere], place.prefix)
    assert [found.name for found in findings if not found.well] == ["virtual host nowhere"]


async def test_nobody_there_is_down_and_a_broken_answer_is_unknown(place: RabbitPlace) -> None:
    """What was not sent did not happen; what was sent may have."""
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = settings_for(place.room, management=f"http://127.0.0.1:{port}")
    async with open_engine(settings, Lent(clock=place.clock)) as engine:
        handle, soon = engine.plan(place.role, place.prefix + "x"), place.clock.now() + timedelta(seconds=9)
        with pytest.raises(OutcomeUnknown):
            await engine.create(handle, place.role, soon, soon)
        assert [line.split()[0] for line in heard] == [b"PUT"], "sent once: the second may be heard when all is over"
        with pytest.raises(TargetDown):
            await engine.names(place.prefix)
        server.close()
        await server.wait_closed()
        with pytest.raises(TargetDown) as refused:
            await engine.create(handle, place.role, soon, soon)
    assert "SOJOURN" not in f"{refused.value!r}{refused.value.__cause__!r}"


async def test_a_server_that_goes_once_the_user_is_made_is_no_server_that_heard_nothing(place: RabbitPlace) -> None:
    """The user stands there; whoever took this for never sent would close the lease and look no more."""
    done = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def make_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        server.close()
        writer.write(done)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(make_and_go, "127.0.0.1", 0)
    settings = settings_for(place.room, management=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with open_engine(settings, Lent(clock=place.clock)) as engine:
        handle, soon = engine.plan(place.role, place.prefix + "x"), place.clock.now() + timedelta(seconds=9)
        with pytest.raises(OutcomeUnknown, match="the user was made"):
            await engine.create(handle, place.role, soon, soon)
    await server.wait_closed()


@asynccontextmanager
async def saying(status: str, body: str = "") -> AsyncIterator[str]:
    """A management API that has one answer to everything; its address."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(head.encode() + body.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_answer_without_end_to_what_was_sent_is_no_silence(place: RabbitPlace) -> None:
    """The user may stand there; a question that was answered so is only a target that is down."""
    async with (
        saying("201 Created", "x" * (_LARGEST + 1)) as address,
        open_engine(settings_for(place.room, management=address), Lent(clock=place.clock)) as engine,
    ):
        handle, soon = engine.plan(place.role, place.prefix + "x"), place.clock.now() + timedelta(seconds=9)
        with pytest.raises(OutcomeUnknown, match="more than"):
            await engine.create(handle, place.role, soon, soon)
        with pytest.raises(TargetDown, match="more than"):
            await engine.names(place.prefix)


@pytest.mark.parametrize(
    "status", ["500 No", "503 No", "302 Found\r\nLocation: http://127.0.0.1:1/", "200 OK", "401 No"]
)
async def test_every_status_is_looked_at(place: RabbitPlace, status: str) -> None:
    """A DELETE that was not said to be done is not done."""
    async with (
        saying(status) as address,
        open_engine(settings_for(place.room, management=address), Lent(clock=place.clock)) as engine,
    ):
        handle = engine.plan(place.role, place.prefix + "x")
        for verb in (engine.end_access, engine.clean_up):
            with pytest.raises(Problem):
                await verb(handle)


@pytest.mark.parametrize(
    "body",
    ["{}", "[]", "[1]", "[{}]", '{"name": 1}', '[{"name": null}]', '{"tags": [1], "password_hash": 7}', "[[[", "\x00"],
)
async def test_an_answer_of_another_form_is_none(place: RabbitPlace, body: str) -> None:
    """Whoever sits there may say what it likes: it is never taken for an ending, and breaks nothing."""
    async with (
        saying("200 OK", body) as address,
        open_engine(settings_for(place.room, management=address), Lent(clock=place.clock)) as engine,
    ):
        handle = engine.plan(place.role, place.prefix + "x")
        with pytest.raises(Problem):
            await engine.end_access(handle)
        assert [found.well for found in await engine.check([place.role], place.prefix)].count(False) == 1


async def test_a_node_that_is_not_to_be_seen_keeps_the_ending_open(place: RabbitPlace) -> None:
    """It may serve whoever is connected there."""
    body = '[{"name":"a","running":true,"partitions":[]},{"name":"b","running":false,"partitions":[]}]'
    async with saying("200 OK", body) as address, open_reach(settings_for(place.room, management=address)) as reach:
        with pytest.raises(NotYet, match="`b`"):
            await nodes(reach)


async def test_we_go_on_when_our_own_password_was_changed(place: RabbitPlace) -> None:
    """From the next request on."""
    assert place.engine.account == place.room.admin
    await place.engine.change_password(place.engine.account, Secret("another"))
    with pytest.raises(TargetDown, match="refused our own login"):
        await place.engine.names(place.prefix)
    place.engine.log_in_with(Secret("another"))
    assert await place.engine.names(place.prefix) == []
