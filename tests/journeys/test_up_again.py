"""A second `up` on the state of the first: after an orderly stop, and after kill -9 with a task and a user alive."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

import asyncpg
import pytest

from ca.runtime.places import Places, make
from journeys.following import until_ended
from journeys.leading import agent, told
from journeys.orders import TARGET, gone, users
from journeys.processes import short_folder
from journeys.up import up_in
from servers.postgres import postgres

ROLE = "orders-db/readonly"


async def test_it_starts_again_and_gives_identities_again() -> None:
    """Keys rest in memory, so a second start has another root; the node agent joins it anew."""
    with short_folder() as folder:
        places = Places.of(folder / "up")
        make(places.state)
        for _ in range(2):
            async with up_in(places) as running, agent(running, "one") as one:
                task = (await told(one, "open", "task"))["task"]
                assert (await told(one, "state", "state"))["state"] == "active"
            assert task


async def test_after_kill_9_the_next_start_ends_what_the_last_one_left() -> None:
    """A live task, a live agent, a user with a session: the next start ends them though nobody else does."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        room = await enter((await enter(postgres())).room())
        folder = stack.enter_context(short_folder())
        places = Places.of(folder / "up")
        make(places.state)
        make(places.state / "targets")
        (places.state / "targets" / "orders-db.yaml").write_text(TARGET.format(room=room))
        secret = {"ORDERS_PASSWORD": room.admin_password}
        async with AsyncExitStack() as first:
            running = await first.enter_async_context(up_in(places, secret, stopped=False))
            one = await enter(agent(running, "one"))
            task = (await told(one, "open", "task"))["task"]
            given = await told(one, f"obtain {ROLE}", "username")
            session = await room.connect(given["username"], given["password"])
            await running.running.end(signal.SIGKILL)
        assert await users(room) == {given["username"]}
        async with up_in(places, secret) as again:
            async with again.operator() as operator:
                await until_ended(operator, task)
                ended = await operator.task(task)
            assert (ended.state, ended.end_reason) == ("cancelled", "shutdown")
            await gone(room)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await session.fetchval("SELECT 1")
        with pytest.raises(asyncpg.PostgresError):
            await room.connect(given["username"], given["password"])
