"""A task's end over a real `up` and a real PostgreSQL: no login, no session, and none that was on its way in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from ca.runtime.clock import SystemClock
from journeys.leading import agent, told
from journeys.orders import Orders, gone, orders
from journeys.processes import PATIENCE
from servers.postgres import Room

ROLE = "orders-db/readonly"
CLOCK = SystemClock()
DEAD = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a session answers that was cut; its client may not have noticed yet."""
DELAY = 4
"""Seconds for which a login is held between its password and its first query."""


async def login(room: Room, given: Mapping[str, Any], **options: Any) -> asyncpg.Connection:
    """With what the agent was given."""
    return await room.connect(given["username"], given["password"], **options)


async def hidden(room: Room) -> bool:
    """Whether a login is under way: it holds a lock of a login, and no activity row names its user."""
    admin = await room.connect()
    try:
        locks = {row["pid"] for row in await admin.fetch("SELECT DISTINCT pid FROM pg_locks WHERE classid = 1262")}
        rows = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL")
    finally:
        await admin.close()
    return bool(locks - {row["pid"] for row in rows})


async def slow_login(room: Room, given: Mapping[str, Any]) -> object:
    """A login that takes its time after its password was accepted; what it read, or how it died."""
    try:
        session = await login(room, given, server_settings={"post_auth_delay": str(DELAY)})
        return await session.fetchval("SELECT count(*) FROM orders")
    except DEAD as error:
        return error


async def killed_by_command(house: Orders, task: str) -> None:
    """What an operator types."""
    finished = await house.up.sojourn("task", "kill", task, "--json")
    assert finished.code == 0, finished.err


async def test_after_a_task_s_end_nobody_is_in_and_nobody_gets_in() -> None:
    """A new login is refused, the open session is dead, and so is the one that was mid-login; the user is gone."""
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        task = (await told(one, "open", "task"))["task"]
        given = await told(one, f"obtain {ROLE}", "username")
        assert await house.users() == {given["username"]}
        session = await login(house.room, given)
        assert await session.fetchval("SELECT count(*) FROM orders") == 3
        async with asyncio.TaskGroup() as group:
            late = group.create_task(slow_login(house.room, given))
            while not await hidden(house.room):
                await CLOCK.sleep(0.02)
            await killed_by_command(house, task)
            await gone(house.room)
        with pytest.raises(asyncpg.PostgresError):
            await login(house.room, given)
        with pytest.raises(DEAD):
            await session.fetchval("SELECT 1")
        assert isinstance(late.result(), DEAD)
        async with house.up.operator() as operator:
            report = await operator.report(task)
        assert report.final
        assert sorted(line.role for line in report.leases) == [ROLE, "svid/task"]


async def test_the_agent_s_own_word_ends_it_too() -> None:
    """The same for an end the agent says, without an operator."""
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        await told(one, "open", "task")
        given = await told(one, f"obtain {ROLE}", "username")
        session = await login(house.room, given)
        assert (await told(one, "end", "state"))["state"] == "done"
        await gone(house.room)
        with pytest.raises(asyncpg.PostgresError):
            await login(house.room, given)
        with pytest.raises(DEAD):
            await session.fetchval("SELECT 1")
