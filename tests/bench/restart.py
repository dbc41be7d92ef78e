"""A broker starts over a store of 1,000,000 open leases: how long until it answers, and what it needs for it.

A process of its own enters the store, settles it, makes the first ticks of its reaper and deadlines, and answers: a
page of leases, then a task and a secret for it. Raw is the same process over a store with one lease. What is in memory
is compared too: it must not grow with the number of leases.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bench.process import Other, module
from bench.table import Row, Unit
from fakes.world import living

LEASES, TASKS = 1_000_000, 10_000


async def measure(folder: Path) -> list[Row]:
    """An empty store, then the full one."""
    small, large = folder / "small", folder / "large"
    for place in (small, large):
        place.mkdir()
        async with living(place) as house:
            await house.held(await house.open())
    _fill(large / "broker.db")
    raw, ours = await _started(small), await _started(large)
    limit = "the same over one lease"
    return [
        _row("restart with 1,000,000 leases → first answer", Unit.MILLISECONDS, ours["ms"], raw["ms"], limit),
        _row(
            "restart with 1,000,000 leases → first secret",
            Unit.MILLISECONDS,
            ours["secret_ms"],
            raw["secret_ms"],
            limit,
        ),
        _row("its memory when it has answered", Unit.KIBIBYTES, ours["kib"], raw["kib"], limit),
    ]


def _row(what: str, unit: Unit, ours: float, limit: float, limit_is: str) -> Row:
    return Row(bench="restart", what=what, unit=unit, ours=ours, limit=limit, limit_is=limit_is, n=LEASES)


async def _started(folder: Path) -> dict[str, float]:
    async with module("restarted") as process:
        found: dict[str, float] = await _asked(process, folder)
    return found


async def _asked(process: Other, folder: Path) -> dict[str, float]:
    answer: dict[str, float] = await process.ask(str(folder))
    return answer


def _fill(path: Path) -> None:
    """Copies of the one task and lease that are there, each with a name and a due time of its own."""
    store = sqlite3.connect(path)
    store.execute("PRAGMA synchronous = OFF")
    store.execute("PRAGMA foreign_keys = OFF")
    for table, count, changed in (
        ("tasks", TASKS, {"id": "printf('t%026d', n)", "root": "printf('t%026d', n)"}),
        (
            "leases",
            LEASES,
            {
                "id": "printf('l%026d', n)",
                "task": f"printf('t%026d', 1 + n % {TASKS})",
                "name": "printf('sj_bench000_%020d', n)",
                "due_at": "due_at + 1000 * n",
                "until": "until + 1000 * n",
                "last": "last + 1000 * n + 3600000000",
            },
        ),
    ):
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        values = ", ".join(changed.get(column, column) for column in columns)
        store.execute(
            f"WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count})"
            f" INSERT INTO {table} ({', '.join(columns)}) SELECT {values}"
            f" FROM number, (SELECT * FROM {table} ORDER BY id LIMIT 1)"
        )
    store.commit()
    assert store.execute("SELECT COUNT(*) FROM leases WHERE closed_at IS NULL").fetchone()[0] > LEASES
    store.close()
