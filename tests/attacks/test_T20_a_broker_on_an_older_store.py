"""Traps 20: a broker's store that was restored, moved or promoted is another life, whatever it says of itself."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from broker.loops.incarnations import Incarnations
from broker.store import events, installation
from broker.store.installation import Installation
from ca.runtime.database import Database, StoreFull, Unit, open_database
from ca.runtime.past import chronicle
from fakes.clock import ManualClock
from fakes.world import living, settle
from servers.postgres import postgres, standby_of
from servers.standby import arrived, promote

CLOCK = ManualClock()
T = TypeVar("T")


@dataclass(frozen=True)
class Full:
    """A store without room for anything."""

    inner: Database

    async def read(self, unit: Unit[T]) -> T:
        return await self.inner.read(unit)

    async def write(self, unit: Unit[T], *, ending: bool = False) -> T:
        raise StoreFull("no space is left")


async def start(url: str, *, endings: int = 0, restored: bool = False) -> Installation:
    """One life of a broker's process over the store at `url`, as `broker/serve.py` begins it."""
    async with open_database(url) as database:
        await settle(database)
        past, now = chronicle(url, database, restored=restored), CLOCK.now()
        found = await database.write(lambda tx: installation.settle(tx, now, past.past))
    folder = Path(url.partition(":")[2]).parent if url.startswith("sqlite:") else Path("/nowhere")
    async with living(folder, clock=CLOCK, store=open_database(url)) as house:
        for _ in range(endings):
            await house.end(await house.open())
        past.note((await house.world.database.read(events.epoch)).n)
    return found


async def test_a_file_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """Restart after restart nothing changes."""
    url = f"sqlite:{tmp_path / 'broker.db'}"
    lives = {(await start(url, endings=1)).incarnation for _ in range(3)}
    assert len(lives) == 1


async def test_a_start_on_a_full_store_is_no_restore_afterwards(tmp_path: Path) -> None:
    """Its new name was never written into the store: once there is room the marker must not name it alone."""
    url = f"sqlite:{tmp_path / 'broker.db'}"
    first = await start(url, endings=1)
    async with open_database(url) as database:
        lives = Incarnations(Full(database), chronicle(url, database))
        assert await lives.begin(CLOCK.now()) == first
        await lives.tick(CLOCK.now())
    assert await start(url) == first


async def test_an_older_copy_of_the_file_is_another_life(tmp_path: Path) -> None:
    """A copy from before the last start, written over the file that is there."""
    store, url = tmp_path / "broker.db", f"sqlite:{tmp_path / 'broker.db'}"
    first = await start(url, endings=1)
    shutil.copy(store, tmp_path / "backup")
    assert await start(url, endings=1) == first
    shutil.copy(tmp_path / "backup", store)
    restored = await start(url)
    assert (restored.id, restored.incarnation != first.incarnation) == (first.id, True)
    assert restored.quarantined_at == CLOCK.now()
    assert await start(url) == restored


async def test_a_copy_of_the_same_life_that_has_not_come_as_far_is_another_life(tmp_path: Path) -> None:
    """Taken while the broker ran, put back after it was killed: the name is right, and events are missing."""
    store, url = tmp_path / "broker.db", f"sqlite:{tmp_path / 'broker.db'}"
    first = await start(url)
    async with living(tmp_path, clock=CLOCK) as house:
        await house.end(await house.open())
    shutil.copy(store, tmp_path / "backup")
    async with open_database(url) as database:
        past = chronicle(url, database)
        now = CLOCK.now()
        assert await database.write(lambda tx: installation.settle(tx, now, past.past)) == first
    shutil.copy(store, tmp_path / "backup")
    async with living(tmp_path, clock=CLOCK) as house:
        await house.end(await house.open())
        past.note((await house.world.database.read(events.epoch)).n)
    shutil.copy(tmp_path / "backup", store)
    assert (await start(url)).incarnation != first.incarnation


async def test_a_whole_folder_put_elsewhere_is_another_life(tmp_path: Path) -> None:
    """Two of them may run now, and only one of them is what it says."""
    (tmp_path / "here").mkdir()
    first = await start(f"sqlite:{tmp_path / 'here' / 'broker.db'}", endings=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert (await start(f"sqlite:{tmp_path / 'there' / 'broker.db'}")).incarnation != first.incarnation
    assert await start(f"sqlite:{tmp_path / 'here' / 'broker.db'}") == first


async def test_an_operator_says_what_nothing_shows(tmp_path: Path) -> None:
    """A snapshot of the whole disk can't be told from what it was taken of; said once, it is another life once."""
    url = f"sqlite:{tmp_path / 'broker.db'}"
    first = await start(url, endings=1)
    second = await start(url, restored=True)
    assert (second.incarnation != first.incarnation, second.quarantined_at) == (True, CLOCK.now())
    assert await start(url) == second


async def test_a_promoted_replica_is_another_life() -> None:
    """Told by the timeline; begun once, however many brokers start on it."""
    async with postgres(fresh=True) as primary:
        address = await primary.store("broker")
        with standby_of(primary) as standby:
            first = await start(address, endings=1)
            await arrived(primary, standby)
            primary.stop(signal.SIGKILL)
            await promote(standby)
            promoted = address.replace(f":{primary.port}/", f":{standby.port}/")
            second = await start(promoted)
            assert (second.id, second.incarnation != first.incarnation) == (first.id, True)
            assert second.quarantined_at == CLOCK.now()
            assert await start(promoted) == second
