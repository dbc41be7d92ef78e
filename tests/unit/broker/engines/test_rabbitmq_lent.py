"""An account of RabbitMQ that somebody else made, lent by the engine static to one lease at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from broker.engines import static
from broker.engines.protocol import Issued, Lent
from servers.rabbitmq_place import RabbitPlace, rabbitmq_place
from servers.static_place import account_role


async def enters(place: RabbitPlace, password: str) -> bool:
    """Over AMQP."""
    guest = place.guest()
    return await asyncio.to_thread(lambda: guest.authenticate("legacy", password) and guest.enter(place.room.vhost))


async def test_an_account_is_lent_and_taken_back() -> None:
    """At check-out whoever was in is cut, at check-in whoever had it; in between one password opens it."""
    async with rabbitmq_place() as place:
        server, rights = place.room.server, {"configure": "", "write": "", "read": "orders"}
        server.ask("PUT", "users", "legacy", body={"password": "old", "tags": ""})
        server.ask("PUT", "permissions", place.room.vhost, "legacy", body=rights)
        try:
            assert await enters(place, "old")
            lent = Lent(clock=place.clock, rotating=lambda _: place.engine)
            async with static.open_engine(static.Settings(kind="static"), lent) as engine:
                the_role = account_role()
                handle, soon = engine.plan(the_role, place.prefix + "x"), place.clock.now() + timedelta(seconds=60)
                issued: Issued = await engine.create(handle, the_role, soon, soon)
                password = issued.secret["password"].reveal()
                assert not await asyncio.to_thread(place.visits[0].guest.answers)
                assert (await enters(place, password), await enters(place, "old")) == (True, False)
                assert (await engine.end_access(handle)).sessions_cut == 1
                assert not await enters(place, password)
        finally:
            server.ask("DELETE", "users", "legacy")
