"""A RabbitMQ that loses its power: what was made is there after it, what was ended is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.errors import TargetDown
from servers.rabbitmq_place import rabbitmq_place


async def test_what_was_said_to_be_done_outlives_the_server() -> None:
    """While it is down nothing is called ended; afterwards the ending goes on."""
    async with rabbitmq_place(fresh=True) as place:
        handles = [place.engine.plan(place.role, f"{place.prefix}{number:020d}") for number in range(3)]
        until = place.clock.now() + timedelta(seconds=60)
        issued = [await place.engine.create(handle, place.role, until, until) for handle in handles]
        await place.engine.end_access(handles[0])
        await place.engine.end_access(handles[1])
        await place.engine.clean_up(handles[1])
        place.room.server.stop()
        with pytest.raises(TargetDown):
            await place.engine.end_access(handles[2])
        await asyncio.to_thread(place.room.server.start)
        assert [await place.login(one) is not None for one in issued] == [False, False, True]
        assert list(await place.engine.names(place.prefix)) == [handles[0].name, handles[2].name]
        await place.engine.end_access(handles[2])
        assert await place.login(issued[2]) is None
