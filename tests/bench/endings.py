"""A task ends: how long until its login is refused, beside `ALTER ROLE … NOLOGIN` on a connection that is open already.

A process of its own tries the login without pause, before and after. Ours begins when the agent sends its `end` to the
broker of `sojourn up`, over mutual TLS; raw begins when a superuser's session sends the statement.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.process import Other, module
from bench.rooms import room
from bench.table import Row, time_rows
from bench.timing import Spread, now
from bench.whole import agent, whole
from broker.engines.passwords import new_password
from broker.engines.postgres.scram import verifier
from servers.postgres import Room

_TIMES, _WARM = 200, 5
_LIMIT = "`ALTER ROLE … NOLOGIN` on an open connection, then the same refusal"


async def measure(folder: Path) -> list[Row]:
    """Two hundred tasks, one after the other."""
    async with room() as place, module("try_login") as trying:
        raw = await _raw(place, trying)
        async with whole(folder, place) as up, agent(up) as worker:

            async def begin() -> tuple[dict[str, Any], Callable[[], Awaitable[object]]]:
                task = await worker.open()
                given = await worker.obtain(task)
                fields = given["fields"]
                facts = {"user": fields["username"], "password": given["secret"]["password"]}
                return _facts(place, **facts), lambda: worker.end(task)

            ours = await _refused(trying, begin)
    return time_rows("endings", "task end → login refused", ours, raw, _LIMIT)


async def _raw(place: Room, trying: Other) -> Spread:
    session = await place.connect()

    async def begin() -> tuple[dict[str, Any], Callable[[], Awaitable[object]]]:
        name, password = f"raw_{secrets.token_hex(6)}", new_password()
        await session.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier(password, 1)}' IN ROLE {place.groups[0]}")
        return _facts(place, user=name, password=password), lambda: session.execute(f"ALTER ROLE {name} NOLOGIN")

    try:
        return await _refused(trying, begin)
    finally:
        await session.close()


async def _refused(
    trying: Other, begin: Callable[[], Awaitable[tuple[dict[str, Any], Callable[[], Awaitable[object]]]]]
) -> Spread:
    took = []
    for turn in range(_WARM + _TIMES):
        facts, end = await begin()
        await trying.ask(facts)
        await asyncio.sleep(0.005 + secrets.randbelow(10) / 1000)  # somewhere in an attempt, not at its beginning
        begun = now()
        _, refused = await asyncio.gather(end(), trying.hear())
        if turn >= _WARM:
            took.append(refused["refused_at"] - begun)
    return Spread.of(took)


def _facts(place: Room, **who: str) -> dict[str, Any]:
    return {"host": place.host, "port": place.port, "database": place.database, **who}
