"""PostgreSQL credentials per second and secret kind, beside the bare `CREATE ROLE` of the same kind.

Ours is `lifecycle.obtain`: fence, intent and receipts durable in SQLite, password and verifier made, the user created,
activated and durable again. A target is asked by eight of ours at once, so raw is eight open connections that send one
statement each, the verifiers made beforehand. Sixteen agents keep the eight places busy; eight agents, one for each
place, wait for one another's commits, and their times are the ones beside raw's. All in turns, on one server.

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
from broker.engines.postgres.settings import CERTIFICATE
from broker.model.task import Task
from fakes.world import House
from servers.postgres import Room

PLACES = 8
"""Calls of `grants` a target takes at once."""
MANY = 16
_TURNS = 3
_EACH_TURN = {"scram-4096": 150, "scram-few": 800, CERTIFICATE: 800}
_WARM = 40


async def measure(folder: Path) -> list[Row]:
    """Every kind, both ways."""
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
        room(apart=apart, tls=kind == CERTIFICATE) as place,
        house(folder, place, kind) as world,
        sessions(place, PLACES) as opened,
    ):
        many, few, raw = await _in_turns(world, place, opened, kind, count)
    limit, where = f"bare `CREATE ROLE`, {kind}, {PLACES} connections", "apart" if apart else "sharing"
    return [
        *rate_rows("credentials", f"PostgreSQL credentials, {kind}, {where}, {MANY} agents", many, raw, limit),
        *rate_rows("credentials", f"PostgreSQL credentials, {kind}, {where}, {PLACES} agents", few, raw, limit),
        *time_rows("credentials", f"one credential, {kind}, {where}, {PLACES} agents", few.each, raw.each, limit),
    ]


async def _in_turns(world: House, place: Room, opened: Sequence[Any], kind: str, count: int) -> tuple[Load, Load, Load]:
    tasks = [await world.open() for _ in range(MANY)]
    await obtained(world, tasks, _WARM)
    await _made(opened, creates(place, kind, _WARM))
    many, few, raw = [], [], []
    for _ in range(_TURNS):
        raw.append(await _made(opened, creates(place, kind, count)))
        many.append(await obtained(world, tasks, count))
        few.append(await obtained(world, tasks[:PLACES], count))
    return sum(many[1:], many[0]), sum(few[1:], few[0]), sum(raw[1:], raw[0])


async def obtained(world: House, tasks: Sequence[Task], count: int) -> Load:
    """By as many agents as there are tasks."""

    async def one(worker: int) -> None:
        await world.obtain(tasks[worker])

    return await shared_out(one, len(tasks), count)


async def _made(opened: Sequence[Any], statements: Sequence[tuple[str, str]]) -> Load:
    waiting = iter(statements)

    async def one(worker: int) -> None:
        await opened[worker].execute(next(waiting)[1])

    return await shared_out(one, len(opened), len(statements))


async def shared_out(one: Callable[[int], Awaitable[None]], workers: int, count: int) -> Load:
    """`count` of them by several workers, each as soon as its last is done."""
    took: list[float] = []
    left = iter(range(count))

    async def worker(number: int) -> None:
        for _ in left:
            before = now()
            await one(number)
            took.append(now() - before)

    begun, cpu = now(), cpu_seconds(os.getpid())
    await asyncio.gather(*(worker(number) for number in range(workers)))
    return Load(done=count, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(took))
