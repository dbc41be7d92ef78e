"""Power cuts: what was acknowledged survives a disk that loses everything that was not synced."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.ground import GROUNDS
from faults.nursery import Nursery
from faults.record import OK, Kill
from faults.synced import built, lose, preloaded
from faults.worlds import World

WRITER = """
import os, sys
os.chdir(sys.argv[1])
def write(name, text, sync):
    with open(name, "w") as file:
        file.write(text)
        file.flush()
        sync and sync(file.fileno())
write("both", "first", os.fsync)
write("data", "only", os.fdatasync)
write("empty", "never", None)
write("draft", "moved", os.fsync)
write("gone", "away", os.fsync)
os.rename("draft", "moved")
os.unlink("gone")
os.fsync(os.open(".", os.O_RDONLY))
write("both", "second, and longer", None)
write("late", "no name", os.fsync)
os.rename("data", "moved later")
"""
CERTAIN = {"both": "first", "data": "only", "empty": "", "moved": "moved"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once."""
    return built(tmp_path_factory.mktemp("library"))


@pytest.fixture
def losing(library: Path) -> Iterator[Nursery]:
    """A warm parent whose children are watched."""
    found = Nursery(preloaded(library))
    yield found
    found.close()


def test_what_was_not_synced_is_lost(library: Path, tmp_path: Path) -> None:
    """The watcher itself: each name the folder had at its last sync, with what the file held at its own."""
    store, kept = tmp_path / "store", tmp_path / "kept"
    store.mkdir()
    kept.mkdir()
    facts = {"SJ_STORE": str(store), "SJ_SYNCED": str(kept), **preloaded(library)}
    subprocess.run([sys.executable, "-c", WRITER, str(store)], env=facts, check=True)
    assert {path.name for path in store.iterdir()} == {"both", "moved later", "empty", "late", "moved"}
    for _ in range(2):  # a second time in a row it is the same
        lose(store, kept)
        assert {path.name: path.read_text() for path in store.iterdir()} == CERTAIN


async def test_killed_anywhere_with_the_power_gone(losing: Nursery) -> None:
    """Random kills, and after each the disk has what was synced: nothing that an agent was told is lost."""
    kills, seed = list[Kill](), secrets.randbits(31)
    async with GROUNDS["redis"]() as ground:
        for number in range(2):
            world = World(losing, ground, None, "redis", seed + number, Counter(), losing=True)
            await world.run(1000, kills.extend)
            assert (seed + number, world.faults) == (seed + number, [])
    assert {kill.verdict for kill in kills} == {OK}
    assert len(kills) >= 40
