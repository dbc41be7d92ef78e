"""A holder is in the middle of a login, hidden from every view of activity, when broker and task end.

`post_auth_delay` is a startup option any client may set: the backend waits, authenticated, and shows itself later. The
next broker never issued that secret, and still has to end the session it opens.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import asyncpg

from ca.runtime.clock import SystemClock
from faults.nursery import why
from faults.yard import Yard

HIDDEN = """
SELECT count(DISTINCT pid) FROM pg_locks WHERE classid = 1262
AND pid NOT IN (SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL)"""


async def read_late(yard: Yard, secret: dict[str, Any]) -> object:
    """Log in slowly, then read: what came of it."""
    try:
        session = await yard.room.connect(secret["user"], secret["password"], server_settings={"post_auth_delay": "3"})
        return await session.fetchval("SELECT count(*) FROM public.orders")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        return error


async def test_the_next_broker_ends_a_login_it_can_not_see(yard: Yard) -> None:
    """It was authenticated before the end, and never reads."""
    case = await yard.case("one_secret", "story.held=stop")
    yard.nursery.begin(case)
    yard.nursery.until_stopped()
    secret = json.loads(case.notes.read_text().splitlines()[0])
    owner, clock = await yard.server.connect(), SystemClock()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        login = group.create_task(read_late(yard, secret))
        while not await owner.fetchval(HIDDEN):
            await clock.sleep(0.01)
        yard.nursery.signal(signal.SIGKILL)
        assert yard.nursery.ended() == -signal.SIGKILL
        assert await asyncio.to_thread(yard.nursery.run, yard.next_life(case, "finish")) == 0, why(case)
        assert await owner.fetchval(HIDDEN) == 0
    await owner.close()
    assert isinstance(login.result(), Exception)
    assert await yard.ask(case, after_a_minute=True) == []
    await yard.recovers(case)
