"""kill -9 in the middle of group commits: what was acknowledged is there afterwards, and nothing is there by half."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ca.runtime import failpoint
from ca.runtime.database import Database, Transaction, open_database
from fakes.stores import postgres_address

WRITERS = 64


async def write(store: Database, number: int) -> None:
    """One unit of two rows that belong together."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("INSERT INTO pair (id) VALUES ($1)", number)
        await tx.execute("INSERT INTO pair (id) VALUES ($1)", -number)

    await store.write(unit)


async def live(address: str) -> None:
    """Write for ever, saying each number as soon as it was acknowledged."""

    async def table(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS pair (id BIGINT PRIMARY KEY)")

    async def writer(store: Database, first: int) -> None:
        for number in range(first, 10**9, WRITERS):
            await write(store, number)
            os.write(1, f"{number}\n".encode())

    async with open_database(address) as store, asyncio.TaskGroup() as group:
        await store.write(table)
        for first in range(1, WRITERS + 1):
            group.create_task(writer(store, first))


def run_until_killed(address: str, marker: Path, points: str, *, after: int | None) -> list[int]:
    """What a process acknowledged before it died by SIGKILL: its own fail-point's, or ours after so many lines."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        failpoint.POINTS: points,
        failpoint.MARKER: str(marker),
    }
    with subprocess.Popen([sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = []
        for line in child.stdout:
            if line.endswith(b"\n"):
                said.append(int(line))
            if len(said) == after:
                child.kill()
        assert child.wait(60) == -signal.SIGKILL
    return said


async def found(address: str) -> set[int]:
    """What the store holds when it is opened again."""

    async def unit(tx: Transaction) -> set[int]:
        return {row["id"] for row in await tx.fetch("SELECT id FROM pair ORDER BY id")}

    async with open_database(address) as store:
        return await store.read(unit)


def check(said: list[int], there: set[int]) -> None:
    """Every acknowledged unit is there, and each unit that is there is whole."""
    assert set(said) <= there
    assert {-number for number in there} == there


@pytest.fixture(params=["postgres", "sqlite"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that a process is killed on."""
    return await postgres_address(tmp_path) if request.param == "postgres" else f"sqlite:{tmp_path / 'store.db'}"


@pytest.mark.parametrize("after", [1, 100, 1000, 3000])
async def test_killed_from_outside(after: int, address: str, tmp_path: Path) -> None:
    """At whatever statement it happens to be."""
    said = run_until_killed(address, tmp_path / "marker", "", after=after)
    assert len(said) >= after
    check(said, await found(address))


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
@pytest.mark.parametrize("time", [2, 5])
async def test_killed_at_a_commit(point: str, time: int, address: str, tmp_path: Path) -> None:
    """Before it nothing of the group is promised; after it all of it is there though nobody was told."""
    said = run_until_killed(address, tmp_path / "marker", f"{point}=kill@{time}", after=None)
    assert (tmp_path / "marker").read_text() == f"{point}\n"
    there = await found(address)
    check(said, there)
    if point.endswith("after"):
        assert len(there) > 2 * len(said)


async def test_killed_again_and_again_on_one_store(address: str, tmp_path: Path) -> None:
    """Each start is the recovery of the one before."""
    said: list[int] = []
    for round_ in range(3):
        if said:
            await forget(address)
        said = run_until_killed(address, tmp_path / "marker", "", after=200 + round_)
        check(said, await found(address))


async def forget(address: str) -> None:
    """Make room for the same numbers again."""

    async def unit(tx: Transaction) -> int:
        return await tx.execute("DELETE FROM pair")

    async with open_database(address) as store:
        await store.write(unit)


if __name__ == "__main__":
    failpoint.arm_from_environment()
    asyncio.run(live(sys.argv[1]))
