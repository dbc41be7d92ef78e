"""PostgreSQL credentials per second and secret kind, beside the bare `CREATE ROLE` of the same kind.

Ours is `lifecycle.obtain`, eight at a time, as many as a target is asked at once: fence, intent and receipts durable in
SQLite, password and verifier made, the user created, activated and durable again. Raw is eight open connections that
send one statement each, the verifiers made beforehand. Both in turns, on one server.

`apart`: PostgreSQL has one core and broker or raw client the other, as with a database on another machine. `sharing`:
all on the same two cores, where each millisecond of the broker's is taken from the server.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.rooms import creates, house, room, sessions
from bench.table import Row, rate_rows, time_rows
from bench.timing import Load, Spread, cpu_seconds, now
from broker.model.task import Task
from fakes.world import House
from servers.postgres import Room

AT_ONCE = 8
_TURNS = 3
_EACH_TURN = {"scram-4096": 150, "scram-few": 800}
_WARM = 40


async def measure(folder: Path) -> list[Row]:
    """Both kinds, both ways."""
    rows: list[Row] = []
    for apart in (True, False):
        if apart and len(os.sched_getaffinity(0)) < 2:
            continue
        for kind, count in _EACH_TURN.items():
            rows += await _measured(folder / f"{kind}-{apart}", kind, count, apart=apart)
    return rows


async def _measured(folder: Path, kind: str, count: int, *, apart: bool) -> list[Row]:
    folder.mkdir()
    async with (
        room(apart=apart) as place,
        house(folder, place, kind) as world,
        sessions(place, AT_ONCE) as opened,
    ):
        ours, raw = await _in_turns(world, place, opened, kind, count)
    limit, where = f"bare `CREATE ROLE`, {kind}, {AT_ONCE} connections", "apart" if apart else "sharing"
    return [
        *rate_rows("credentials", f"PostgreSQL credentials, {kind}, {where}", ours, raw, limit),
        *time_rows("credentials", f"one credential, {kind}, {where}", ours.each, raw.each, limit),
    ]


async def _in_turns(world: House, place: Room, opened: Sequence[Any], kind: str, count: int) -> tuple[Load, Load]:
    tasks = [await world.open() for _ in range(AT_ONCE)]
    await _obtained(world, tasks, _WARM)
    await _made(opened, creates(place, kind, _WARM))
    ours, raw = [], []
    for _ in range(_TURNS):
        raw.append(await _made(opened, creates(place, kind, count)))
        ours.append(await _obtained(world, tasks, count))
    return sum(ours[1:], ours[0]), sum(raw[1:], raw[0])


async def _obtained(world: House, tasks: Sequence[Task], count: int) -> Load:
    async def one(worker: int) -> None:
        await world.obtain(tasks[worker])

    return await _shared_out(one, count)


async def _made(opened: Sequence[Any], statements: Sequence[tuple[str, str]]) -> Load:
    waiting = iter(statements)

    async def one(worker: int) -> None:
        await opened[worker].execute(next(waiting)[1])

    return await _shared_out(one, len(statements))


async def _shared_out(one: Callable[[int], Awaitable[None]], count: int) -> Load:
    """`count` of them by `AT_ONCE` workers, each as soon as its last is done."""
    took: list[float] = []
    left = iter(range(count))

    async def worker(number: int) -> None:
        for _ in left:
            before = now()
            await one(number)
            took.append(now() - before)

    begun, cpu = now(), cpu_seconds(os.getpid())
    await asyncio.gather(*(worker(number) for number in range(AT_ONCE)))
    return Load(done=count, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(took))
