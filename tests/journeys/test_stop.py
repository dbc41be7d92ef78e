"""Ctrl-C of `up` while its PostgreSQL is down: it waits and says for what; a second one does not wait any more."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from ca.runtime.clock import SystemClock
from ca.runtime.places import Places, make
from journeys.leading import agent, told
from journeys.orders import TARGET, gone, users
from journeys.processes import PATIENCE, short_folder
from journeys.up import up_in
from servers.postgres import postgres

ROLE = "orders-db/readonly"
CLOCK = SystemClock()


def places_in(folder: Path, target: str) -> Places:
    """A state folder with one target."""
    places = Places.of(folder / "up")
    make(places.state)
    make(places.state / "targets")
    (places.state / "targets" / "orders-db.yaml").write_text(target)
    return places


async def test_it_waits_for_a_target_that_is_down() -> None:
    """The task has ended at once; the process ends by itself once the server is back and the user is gone."""
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres(fresh=True))
        room = await stack.enter_async_context(server.room())
        places = places_in(stack.enter_context(short_folder()), TARGET.format(room=room))
        secret = {"ORDERS_PASSWORD": room.admin_password}
        async with up_in(places, secret, stopped=False) as running, agent(running, "one") as one:
            await told(one, "open", "task")
            await told(one, f"obtain {ROLE}", "username")
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            running.running.process.send_signal(signal.SIGINT)
            while "waiting until access is gone" not in running.running.errors.read_text():
                await CLOCK.sleep(0.05)
            assert running.running.process.returncode is None
            await asyncio.to_thread(server.start)
            assert await running.running.ended() == 0
        assert not await users(room)


async def test_a_second_one_leaves_the_rest_to_the_next_start() -> None:
    """It exits 130 with a user left; the next start, the server being back, ends that."""
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres(fresh=True))
        room = await stack.enter_async_context(server.room())
        places = places_in(stack.enter_context(short_folder()), TARGET.format(room=room))
        secret = {"ORDERS_PASSWORD": room.admin_password}
        async with up_in(places, secret, stopped=False) as running, agent(running, "one") as one:
            await told(one, "open", "task")
            given = await told(one, f"obtain {ROLE}", "username")
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            running.running.process.send_signal(signal.SIGINT)
            await running.running.line("ending every task")
            assert await running.running.end(signal.SIGINT) == 130
        await asyncio.to_thread(server.start)
        assert await users(room) == {given["username"]}
        async with up_in(places, secret):
            await gone(room)
        with pytest.raises(asyncpg.PostgresError):
            await room.connect(given["username"], given["password"])
