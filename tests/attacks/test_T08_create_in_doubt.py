"""T8: the broker dies, or is frozen, in the middle of a create. Nothing stays for longer than one sweep.

Real PostgreSQL, a real store, a broker that is a process of its own. A create is held up where it hurts by a lock on
the catalogue that only the test holds: the statement was sent, is being executed, and has no answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.engines.postgres import open_engine
from broker.engines.protocol import Lent
from broker.model.lease import LeaseState
from fakes.world import House, living
from servers.postgres import installations
from servers.postgres_place import PostgresPlace, postgres_place, settings_for

HERE = Path(__file__).parent


@asynccontextmanager
async def life(folder: Path, place: PostgresPlace) -> AsyncIterator[House]:
    """The next life of the broker, in this process, on the same store."""
    soon = timedelta(seconds=1)
    async with (
        open_engine(settings_for(place.room), Lent(clock=place.clock)) as engine,
        living(folder, clock=place.clock, engine=engine, the_role=place.role, deadline=soon) as house,
    ):
        yield house


@contextmanager
def doomed(folder: Path, place: PostgresPlace, points: str = "") -> Iterator[subprocess.Popen[str]]:
    """A broker that waits for its word to obtain one secret."""
    root = HERE.parent.parent
    process = subprocess.Popen(
        [sys.executable, str(HERE / "doomed_broker.py"), str(folder), json.dumps(asdict(place.room))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "SOJOURN_FAILPOINTS": points},
    )
    with process:
        try:
            assert hear(process) == "ready\n"
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str]) -> str:
    """Its next line; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline()


def go(process: subprocess.Popen[str]) -> None:
    """Let it obtain."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@asynccontextmanager
async def held_up(place: PostgresPlace) -> AsyncIterator[None]:
    """Every CREATE ROLE waits inside the server for as long as this lasts."""
    blocker = await place.server.connect()
    await blocker.execute("BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE")
    try:
        yield
    finally:
        await blocker.execute("ROLLBACK")
        await blocker.close()


async def ask(place: PostgresPlace, query: str, *arguments: object) -> Any:
    """One value, asked by the superuser and not by our engine."""
    connection = await place.server.connect()
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def until(place: PostgresPlace, query: str, *arguments: object) -> None:
    """Wait until the server says yes."""
    async with asyncio.timeout(60):
        while not await ask(place, query, *arguments):
            await place.clock.sleep(0.01)


WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 1260"
THERE = "SELECT count(*) > 0 FROM pg_roles WHERE starts_with(rolname, $1)"


async def recover(house: House) -> None:
    """Tick until nothing is open any more."""
    async with asyncio.timeout(60):
        while not all(lease.is_closed for lease in await house.leases()):
            await house.reap()
            await house.clock.sleep(0.1)


@pytest.mark.parametrize("name", installations())
async def test_a_create_whose_broker_was_killed_is_found_and_undone(tmp_path: Path, name: str) -> None:
    """The backend goes on after its client is gone: a look finds nothing, and then it comes."""
    async with postgres_place(installations()[name]) as place:
        with doomed(tmp_path, place) as process:
            async with held_up(place):
                go(process)
                await until(place, WAITING)
                process.send_signal(signal.SIGKILL)
                process.wait(60)
                async with life(tmp_path, place) as house:
                    (lease,) = await house.leases()
                    assert lease.state is LeaseState.INTENDED  # durable before the statement left
                    assert not await ask(place, THERE, house.world.prefix)
            await until(place, THERE, house.world.prefix)
        async with life(tmp_path, place) as house:
            await recover(house)
            assert not await ask(place, THERE, house.world.prefix)
            assert (await house.sweep()).principals == 0


async def test_nothing_is_certain_while_the_create_is_in_flight(tmp_path: Path) -> None:
    """Occupying the name waits for the other's CREATE ROLE; until it answers the lease stays in doubt."""
    async with postgres_place() as place:
        with doomed(tmp_path, place) as process:
            async with held_up(place):
                go(process)
                await until(place, WAITING)
                process.send_signal(signal.SIGKILL)
                process.wait(60)
                async with life(tmp_path, place) as house:
                    await house.reap()
                    (lease,) = await house.leases()
                    assert lease.state is LeaseState.IN_DOUBT
        async with life(tmp_path, place) as house:
            await recover(house)
            assert not await ask(place, THERE, house.world.prefix)


async def test_a_frozen_broker_that_thaws_too_late_makes_nothing(tmp_path: Path) -> None:
    """Stopped between its intent and its call: the statement carries a deadline that the target's clock judges."""
    async with postgres_place() as place:
        with doomed(tmp_path, place, "obtain.create.before=stop") as process:
            go(process)
            async with asyncio.timeout(60):
                while stat(process.pid) != "T":
                    await place.clock.sleep(0.01)
            late = place.clock.now() + timedelta(seconds=1.1)
            await until(place, "SELECT clock_timestamp() > $1", late)
            process.send_signal(signal.SIGCONT)
            assert hear(process) == "Unavailable\n"
            process.wait(60)
        assert "too late" in place.server.log
        async with life(tmp_path, place) as house:
            await recover(house)
            assert not await ask(place, THERE, house.world.prefix)


@pytest.mark.parametrize("point", ["obtain.intend.after", "obtain.create.after", "obtain.activate.after"])
async def test_killed_around_the_create(tmp_path: Path, point: str) -> None:
    """Before it, after it, or when the lease was active and nobody had been told: nothing stays."""
    async with postgres_place() as place:
        with doomed(tmp_path, place, f"{point}=kill") as process:
            go(process)
            assert process.wait(60) == -signal.SIGKILL
        async with life(tmp_path, place) as house:
            if point == "obtain.activate.after":
                (lease,) = await house.leases()
                assert lease.state is LeaseState.ACTIVE
                await house.reaper.tick(lease.ack_by)
            await recover(house)
            assert not await ask(place, THERE, house.world.prefix)


def stat(pid: int) -> str:
    """The state of a process, as one letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
