"""A task with a thousand leases ends: the transaction that fences all of them, and until each is verified gone.

Raw, for the transaction: one row changed durably in the same store. Raw, for the rest: what a script of a DBA would do
for a thousand users, on as many connections as we end leases with: `NOLOGIN`, `pg_terminate_backend` for its sessions,
`DROP ROLE`, without looking for a login in flight, without a receipt and without an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.rooms import creates, house, room, sessions
from bench.table import Row, Unit
from bench.timing import Spread, now
from broker.model.task import Task
from broker.store import leases
from ca.runtime.database import Transaction
from ca.runtime.process import background
from fakes.world import House

LEASES = 1000
_TASKS = 3
_ENDINGS = 4
"""As many calls of `ending` as a target takes at once."""

_AT_ONCE = 8


async def measure(folder: Path) -> list[Row]:
    """Make them, end the task, wait until the server has none of them."""
    async with room() as place, sessions(place, _ENDINGS) as opened, house(folder, place, "scram-few") as world:
        made = creates(place, "scram-few", LEASES)
        await _by_several(opened, [statement for _, statement in made])
        raw = await _dropped(opened, [name for name, _ in made])
        commit = await _commits(world)
        fenced, gone = await _several(world, opened[0])
    told = f"a task with {LEASES:,} leases ends"
    script = f"NOLOGIN, terminate, DROP for {LEASES:,} roles, {_ENDINGS} connections"
    return [
        _row(f"{told}: its transaction", fenced, commit, "one durable row"),
        _row(f"{told}: all verified gone", gone, raw, script),
    ]


def _row(what: str, ours: float, limit: float, limit_is: str) -> Row:
    unit = Unit.MILLISECONDS
    return Row(bench="fences", what=what, unit=unit, ours=ours, limit=limit, limit_is=limit_is, n=_TASKS)


async def _several(world: House, eyes: Any) -> tuple[float, float]:
    """The same with several tasks, one after the other; the one in the middle counts."""
    found = []
    for _ in range(_TASKS):
        task = await world.open()
        await _obtained(world, task)
        async with _loops(world):
            found.append(await _ended(world, task, eyes))
    fenced, gone = (sorted(times)[_TASKS // 2] for times in zip(*found, strict=True))
    return fenced, gone


async def _ended(world: House, task: Task, eyes: Any) -> tuple[float, float]:
    """Milliseconds of the ending transaction, and until nothing is open in the store and nobody is in the server."""
    begun = now()
    ended = await world.end(task)
    fenced = now() - begun
    if [one.id for one in ended] != [task.id]:
        raise RuntimeError("the task of the bench did not end")
    while await world.world.database.read(_any_open):
        await world.clock.sleep(0.01)
    gone = now() - begun
    prefix = world.world.prefix
    left = await eyes.fetchval("SELECT count(*) FROM pg_roles WHERE left(rolname, $2) = $1", prefix, len(prefix))
    if left:
        raise RuntimeError(f"{left} users of the bench were left")
    return 1000 * fenced, 1000 * gone


async def _any_open(tx: Transaction) -> bool:
    return bool(await leases.page(tx, after=None, limit=1, open_only=True))


async def _obtained(world: House, task: Task) -> None:
    left = iter(range(LEASES))

    async def worker() -> None:
        for _ in left:
            await world.obtain(task)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def _commits(world: House, times: int = 200) -> float:
    """Milliseconds of one small durable transaction, half of them are faster."""
    task = await world.open()

    async def unit(tx: Transaction) -> None:
        await tx.execute("UPDATE tasks SET touched = touched + 1 WHERE id = $1", task.id)

    took = []
    for _ in range(times):
        begun = now()
        await world.world.database.write(unit)
        took.append(now() - begun)
    return Spread.of(took).milliseconds(0.5)


async def _dropped(opened: Sequence[Any], names: Sequence[str]) -> float:
    begun = now()
    statements = [
        f"ALTER ROLE {name} NOLOGIN;"
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}';"
        f"DROP ROLE {name}"
        for name in names
    ]
    await _by_several(opened, statements)
    return 1000 * (now() - begun)


async def _by_several(opened: Sequence[Any], statements: Sequence[str]) -> None:
    left = iter(statements)

    async def worker(session: Any) -> None:
        for statement in left:
            for one in statement.split(";"):
                await session.execute(one)

    await asyncio.gather(*(worker(session) for session in opened))


@asynccontextmanager
async def _loops(world: House) -> AsyncIterator[None]:
    """The reaper as the broker runs it."""
    async with AsyncExitStack() as stack:
        tick, wake = world.reaper.tick, world.world.reaper
        await stack.enter_async_context(background("reaper", tick, every=1.0, clock=world.clock, wake=wake))
        yield
