"""A word between processes over one store: heard by the others, not by oneself, and made up for when a wire broke."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ca.runtime.bell import open_bell
from ca.runtime.clock import SystemClock
from ca.runtime.database import open_database
from fakes.stores import postgres_address
from fakes.wire_tap import tapped
from servers.postgres import postgres

CLOCK = SystemClock()


class Ear:
    """Counts."""

    def __init__(self) -> None:
        self.times = 0
        self._changed = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._changed.set()

    async def next(self) -> None:
        """The next word."""
        async with asyncio.timeout(30):
            await self._changed.wait()
        self._changed.clear()


async def test_a_ring_is_heard_by_the_other_and_not_by_oneself(tmp_path: Path) -> None:
    """Many at once are few words; another bell is not meant."""
    address = await postgres_address(tmp_path)
    ears = mine, theirs, elsewhere = Ear(), Ear(), Ear()
    async with (
        open_database(address) as one,
        open_database(address) as other,
        open_bell(one, "tried", mine, CLOCK) as ring,
        open_bell(other, "tried", theirs, CLOCK) as answer,
        open_bell(other, "elsewhere", elsewhere, CLOCK),
    ):
        for ear in ears:
            await ear.next()  # connected: there may have been words before
        await CLOCK.sleep(0.1)
        before = [ear.times for ear in ears]
        theirs._changed.clear()
        mine._changed.clear()
        for _ in range(500):
            ring()
        await theirs.next()
        assert mine.times == before[0]
        answer()
        await mine.next()
        assert elsewhere.times == before[2]
        assert theirs.times <= before[1] + 2


async def test_what_was_rung_while_the_wire_was_cut_is_made_up_for(tmp_path: Path) -> None:
    """Whoever comes back looks, and says his word then."""
    address, mine, theirs = await postgres_address(tmp_path), Ear(), Ear()
    async with postgres() as server, tapped(server.host, server.port) as tap:
        through = address.replace(f":{server.port}/", f":{tap.address[1]}/")
        async with (
            open_database(through) as one,
            open_database(address) as other,
            open_bell(one, "tried", mine, CLOCK) as ring,
            open_bell(other, "tried", theirs, CLOCK),
        ):
            for ear in (mine, theirs):
                await ear.next()
            await CLOCK.sleep(0.1)
            mine._changed.clear()
            theirs._changed.clear()
            tap.cut_all()
            ring()
            await mine.next()
            await theirs.next()


@pytest.mark.parametrize("times", [0, 3])
async def test_over_sqlite_there_is_nobody_to_hear(tmp_path: Path, times: int) -> None:
    """And nothing to pay."""
    ear = Ear()
    async with open_database(f"sqlite:{tmp_path}/a.db") as store, open_bell(store, "tried", ear, CLOCK) as ring:
        for _ in range(times):
            ring()
    assert ear.times == 0
