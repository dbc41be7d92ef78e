"""Two brokers over one store: one is frozen past its claim, the other takes over and sweeps, the first is thawed.

Wherever it was frozen: it goes on with what it had begun, and finds that it was taken for dead. After it, one sweep of
whoever starts next leaves a clean world. A store that is a file is held, and nobody can take it over
(`test_frozen_across_create.py`).
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from faults.case import Case
from faults.eyes.store import SharedStore
from faults.ground import GROUNDS, Ground
from faults.nursery import Nursery, fired, why
from faults.oracle import Outside, look
from faults.stories import AFTERWARDS
from servers.postgres import Room, Server

POINTS = [
    "obtain.intend.after", "obtain.create.before", "obtain.create.after", "obtain.activate.before",
    "obtain.activate.after", "acknowledge.commit.before", "reissue.replace.before", "reissue.confirm.before",
    "renew.renew.before", "renew.renew.after", "restamp.commit.before", "withdraw.begin.after",
    "withdraw.end_access.before", "withdraw.end_access.after", "withdraw.clean_up.after", "withdraw.gone.before",
    "end_task.commit.before", "store.commit.before", "store.commit.after",
]  # fmt: skip

FROZEN = POINTS if "FAULTS_ALL" in os.environ else POINTS[::2]
PARTS = 2
KINDS = ["postgres", "redis"] if "FAULTS_ALL" in os.environ else ["postgres"]


@pytest.fixture
def second() -> Iterator[Nursery]:
    """Another warm parent, for the broker beside the frozen one."""
    found = Nursery()
    yield found
    found.close()


@pytest.fixture(params=KINDS)
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """One that refuses what is there, and one that makes it anew."""
    async with GROUNDS[request.param]() as found:
        yield found


@pytest.mark.parametrize("part", range(PARTS))
async def test_frozen_past_its_claim_and_thawed(  # noqa: PLR0917 - two brokers, their store and target
    nursery: Nursery, second: Nursery, ground: Ground, stage: tuple[Server, Room], tmp_path: Path, part: int
) -> None:
    """At some of these points in turn, each time over a store of its own."""
    for number, point in enumerate(FROZEN[part::PARTS]):
        await ground.clear()
        folder, name = tmp_path / str(number), secrets.token_hex(6)
        folder.mkdir(mode=0o700)
        server = stage[0]
        case = Case(
            story="everyday", points=f"{point}=stop@{4 if point.startswith('store') else 1}",
            folder=str(folder), database=await server.store(name), **ground.facts(),
        )  # fmt: skip
        nursery.begin(case)
        nursery.until_stopped()
        assert fired(case) == [point.partition("=")[0]]
        beside = replace(case, story="restart", points="")
        assert second.run(beside) == 0, (point, why(beside))
        nursery.signal(signal.SIGCONT)
        assert nursery.ended() == 0, (point, why(case))
        address = {"host": server.host, "port": server.port, "user": server.superuser, "password": server.password}
        where = Outside(
            store=SharedStore({**address, "database": f"store_{name}"}), eyes=ground.eyes,
            log_from=ground.eyes.log.stat().st_size, notes=case.notes, registry=case.registry,
        )  # fmt: skip
        for story in AFTERWARDS:
            assert second.run(replace(beside, story=story)) == 0, (point, story, why(beside))
            seen = replace(where, store=SharedStore({**address, "database": f"store_{name}"}))
            assert (point, story, await look(seen, after_a_minute=story != "restart")) == (point, story, [])
        assert (point, await ground.eyes.principals("sj_")) == (point, {})
        nursery.forget()
        second.forget()
