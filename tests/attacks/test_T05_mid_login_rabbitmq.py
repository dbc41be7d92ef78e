"""T5 on RabbitMQ: a login that authenticated in time and goes on after its end; and a storm of them.

Until it has opened its virtual host a connection is in no list, not even in the server's own tracking.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.engines.protocol import Issued
from broker.model.lease import Handle
from servers.amqp import Guest
from servers.rabbitmq_place import RabbitPlace, rabbitmq_place


@pytest.fixture
async def place() -> AsyncIterator[RabbitPlace]:
    """A real RabbitMQ."""
    async with rabbitmq_place() as found:
        yield found


async def issue(place: RabbitPlace) -> tuple[Handle, Issued]:
    """A principal that may log in."""
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    return handle, await place.engine.create(handle, place.role, until, until)


async def test_a_login_that_waits_before_the_virtual_host_is_refused_there(place: RabbitPlace) -> None:
    """Its password was right; the permission it needs is gone."""
    handle, issued = await issue(place)
    guest = place.guest()
    assert guest.authenticate(handle.name, issued.secret["password"].reveal())
    assert (await place.engine.end_access(handle)).sessions_cut == 0
    assert not guest.enter(place.room.vhost)


async def test_and_so_it_is_when_the_user_is_gone(place: RabbitPlace) -> None:
    """Deleted, the name opens nothing either."""
    handle, issued = await issue(place)
    guest = place.guest()
    assert guest.authenticate(handle.name, issued.secret["password"].reveal())
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)
    assert not guest.enter(place.room.vhost)
    assert handle.name not in place.room.principals()


async def test_of_a_storm_of_logins_nobody_is_left(place: RabbitPlace) -> None:
    """They come in at every moment of the ending; once it has answered, the server's own list has none of them."""
    handle, issued = await issue(place)
    password, stop, inside = issued.secret["password"].reveal(), asyncio.Event(), list[Guest]()

    def attempt() -> None:
        guest = Guest(place.room.server.host, place.room.server.port)
        if guest.authenticate(handle.name, password) and guest.enter(place.room.vhost):
            inside.append(guest)
        else:
            guest.leave()

    async def insist() -> None:
        while not stop.is_set():
            await asyncio.to_thread(attempt)

    async with asyncio.TaskGroup() as storm:
        for _ in range(8):
            storm.create_task(insist())
        while len(inside) < 5:
            await place.clock.sleep(0.01)
        ended = await place.engine.end_access(handle)
        left = await asyncio.to_thread(place.room.connections)
        stop.set()
    assert ended.sessions_cut >= 1
    assert handle.name not in left
    assert [guest.answers() for guest in inside] == [False] * len(inside)
    for guest in inside:
        guest.leave()
