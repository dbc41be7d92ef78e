"""Watching files: every kind of change is seen, a refused one changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.runtime.watch import watch_file
from fakes.clock import ManualClock


class Reader:
    """Counts how often it was told to read again."""

    def __init__(self) -> None:
        self.times = 0

    async def read(self) -> None:
        self.times += 1


def rewrite(path: Path) -> None:
    """Other contents under the same name."""
    path.write_text("longer than before")


def rename_over(path: Path) -> None:
    """As an editor saves."""
    other = path.with_name("new")
    other.write_text("one")  # as long as before
    other.rename(path)


def remove(path: Path) -> None:
    """Gone."""
    path.unlink()


@pytest.mark.parametrize("change", [rewrite, rename_over, remove])
async def test_a_change_is_told_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Written in place, renamed over, removed."""
    path, reader, clock = tmp_path / "rules.yaml", Reader(), ManualClock()
    path.write_text("one")
    async with watch_file(path, clock, reader.read):
        await clock.advance(5)
        assert reader.times == 0
        change(path)
        await clock.advance(5)
    assert reader.times == 1


async def test_a_file_that_appears_is_a_change(tmp_path: Path) -> None:
    """It need not be there at the start."""
    path, reader, clock = tmp_path / "rules.yaml", Reader(), ManualClock()
    async with watch_file(path, clock, reader.read):
        await clock.advance(1)
        path.write_text("one")
        await clock.advance(1)
    assert reader.times == 1


async def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """Kubernetes changes a mounted ConfigMap by swapping a link to a folder."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.yaml").write_text("same")
    (tmp_path / "now").symlink_to("a")
    reader, clock = Reader(), ManualClock()
    async with watch_file(tmp_path / "now" / "rules.yaml", clock, reader.read):
        await clock.settle()
        (tmp_path / "next").symlink_to("b")
        (tmp_path / "next").rename(tmp_path / "now")
        await clock.advance(1)
    assert reader.times == 1


async def test_in_a_folder_every_file_is_looked_at(tmp_path: Path) -> None:
    """A file that comes, one that goes, one that changes below."""
    reader, clock = Reader(), ManualClock()
    (tmp_path / "below").mkdir()
    async with watch_file(tmp_path, clock, reader.read):
        await clock.settle()
        (tmp_path / "a.cedar").write_text("a")
        await clock.advance(1)
        (tmp_path / "below" / "b.cedar").write_text("b")
        await clock.advance(1)
        (tmp_path / "a.cedar").unlink()
        await clock.advance(1)
    assert reader.times == 3


async def test_a_refused_change_is_tried_again_only_when_it_changes_again(tmp_path: Path) -> None:
    """A bad file takes nothing down and is told once, not each second."""
    path, clock, times = tmp_path / "rules.yaml", ManualClock(), 0

    def refuse() -> None:
        nonlocal times
        times += 1
        raise Malformed("not so")

    async with watch_file(path, clock, refuse):
        await clock.settle()
        path.write_text("bad")
        await clock.advance(5)
        path.write_text("worse")
        await clock.advance(5)
    assert times == 2


async def test_sighup_reads_again_whatever_it_looks_like(tmp_path: Path) -> None:
    """Every watch of the process hears it; afterwards the signal is as it was."""
    before = signal.getsignal(signal.SIGHUP)
    one, two, clock = Reader(), Reader(), ManualClock()
    async with watch_file(tmp_path / "a", clock, one.read), watch_file(tmp_path / "b", clock, two.read):
        await clock.settle()
        os.kill(os.getpid(), signal.SIGHUP)
        await clock.until(lambda: one.times == two.times == 1)
    assert signal.getsignal(signal.SIGHUP) == before


async def test_any_other_failure_ends_the_process(tmp_path: Path) -> None:
    """The law of the dead loop holds here, too."""
    clock = ManualClock()

    def fail() -> None:
        raise ValueError

    async def live() -> None:
        async with watch_file(tmp_path / "a", clock, fail):
            await clock.settle()
            (tmp_path / "a").write_text("x")
            await clock.advance(1)
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup):
        await live()
