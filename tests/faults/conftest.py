"""One warm parent of brokers for the run, a yard for each test, and the last word: how many were killed, and where."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.nursery import LIVES, Nursery
from faults.yard import Yard
from house.failpoints import all_points
from house.tree import ROOT
from servers.postgres import Room, Server, postgres


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The warm parent of this run."""
    found = Nursery()
    yield found
    found.close()


@pytest.fixture(scope="session")
def stage() -> tuple[Server, Room]:
    """A server only these tests use, and one room of it: a case leaves it as it found it."""

    async def furnish() -> tuple[Server, Room]:
        async with postgres(options=("log_min_messages=error",)) as server, server.room() as room:
            return server, room

    return asyncio.run(furnish())


@pytest.fixture
def yard(nursery: Nursery, stage: tuple[Server, Room], tmp_path: Path) -> Yard:
    """A folder of the test's own."""
    return Yard(nursery, *stage, tmp_path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many brokers were killed, and where; every life as a line of JSON in `build/faults.jsonl`."""
    kills = [life for life in LIVES if life["status"] == -9]
    if not kills:
        return
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "faults.jsonl").write_text("".join(json.dumps(life) + "\n" for life in LIVES))
    own = {point for life in kills for point in life["fired"]}
    points = set(all_points())
    terminalreporter.write_line(
        f"faults: {len(LIVES)} lives of a broker, {len(kills)} killed, {len(own & points)} of {len(points)} points"
    )
