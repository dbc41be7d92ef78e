"""What is SQLite's own: files, locks, and what an I/O error does."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ca.errors import Malformed, Unavailable
from ca.runtime import failpoint
from ca.runtime.database import Duplicate, StoreFull, StoreLocked, Transaction
from ca.runtime.metrics import Metrics
from ca.runtime.sqlite import GROUP, open_sqlite
from fakes.stores import Elsewhere, create, ids, insert

OPENS = """
import asyncio, sys
from pathlib import Path
from ca.runtime.sqlite import open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1])):
        print("opened")
asyncio.run(main())
"""


def run_python(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", script, *args], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def broken_log(path: Path) -> Iterator[None]:
    """Put a pipe where SQLite has its log open: every write to it fails as an I/O error would."""
    wanted = f"{path}-wal"
    found = [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _leads_to(entry) == wanted]
    assert len(found) == 1
    kept = os.dup(found[0])
    reading, writing = os.pipe()
    os.dup2(writing, found[0])
    try:
        yield
    finally:
        os.dup2(kept, found[0])
        for descriptor in (kept, reading, writing):
            os.close(descriptor)


def _leads_to(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:
        return ""


async def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The store, its log and its reserve, whatever they were before."""
    path = tmp_path / "store.db"
    path.touch(mode=0o644)
    async with open_sqlite(path) as store:
        await store.write(create)
        await store.write(insert(1))
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db.reserve": 0o600}


async def test_the_reserve_is_made_of_real_blocks(tmp_path: Path) -> None:
    """A sparse file would reserve nothing."""
    async with open_sqlite(tmp_path / "store.db", reserve=1024 * 1024):
        found = (tmp_path / "store.db.reserve").stat()
    assert found.st_size == 1024 * 1024
    assert found.st_blocks * 512 >= found.st_size


async def test_another_process_is_refused_even_after_this_one_refused_itself(tmp_path: Path) -> None:
    """Closing a second descriptor of a file drops a process's POSIX locks; the refusal must not do that."""
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        with pytest.raises(StoreLocked):
            async with open_sqlite(path):
                pass
        other = await asyncio.to_thread(run_python, OPENS, str(path))
        assert other.returncode != 0
        assert f"StoreLocked: the store `{path}` is in use by another process" in other.stderr
        await store.write(create)
    after = await asyncio.to_thread(run_python, OPENS, str(path))
    assert after.stdout == "opened\n"


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 40, b"SQLite format 3\0"])
async def test_a_file_that_is_no_store_is_refused_and_not_touched(tmp_path: Path, content: bytes) -> None:
    """Somebody pointed at the wrong file."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(Malformed, match=r"can't use the store"):
        async with open_sqlite(path):
            pass
    assert path.read_bytes() == content


async def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """With the file that was meant."""
    with pytest.raises(Malformed, match=r"gone/store.db.*No such file"):
        async with open_sqlite(tmp_path / "gone" / "store.db"):
            pass


async def test_an_io_error_at_commit_is_fatal_and_acknowledges_nothing(tmp_path: Path) -> None:
    """What is durable is unknown: nobody is told that it worked, and nothing is written any more."""
    path = tmp_path / "store.db"
    reasons: list[BaseException] = []
    async with open_sqlite(path, on_fatal=reasons.append) as store:
        await store.write(create)
        with broken_log(path):
            answers = await asyncio.gather(*(store.write(insert(n)) for n in range(5)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) and not isinstance(answer, StoreFull) for answer in answers)
        with pytest.raises(Unavailable):
            await store.write(insert(9), ending=True)
        with pytest.raises(Unavailable):
            await ids(store)
    assert len(reasons) == 1
    assert str(path) in str(reasons[0])
    async with open_sqlite(path) as again:
        assert await ids(again) == []


async def test_by_default_an_io_error_at_commit_ends_the_process(tmp_path: Path) -> None:
    """One line says why; the next start re-reads."""
    script = """
import asyncio, runpy, sys
from pathlib import Path
from ca.runtime.sqlite import open_sqlite
from fakes.stores import create, insert
broken_log = runpy.run_path(sys.argv[2])["broken_log"]
async def main():
    path = Path(sys.argv[1])
    async with open_sqlite(path) as store:
        await store.write(create)
        await store.write(insert(1))
        with broken_log(path):
            await store.write(insert(2))
    print("lived")
asyncio.run(main())
"""
    path = tmp_path / "store.db"
    child = await asyncio.to_thread(run_python, script, str(path), __file__)
    assert child.returncode == 1
    assert child.stdout == ""
    assert "the process can't go on" in child.stderr
    async with open_sqlite(path) as again:
        assert await ids(again) == [1]


@pytest.mark.parametrize(("time", "expected"), [(3, 1), (4, 0)])
async def test_all_that_is_queued_shares_commits_up_to_a_group_each(time: int, expected: int, tmp_path: Path) -> None:
    """One unit holds the thread until 2 x GROUP are queued: three commits, not more and not fewer."""
    queued = threading.Event()
    reached: list[int] = []

    async def holds(tx: Transaction) -> None:
        assert queued.wait(60)

    async with open_sqlite(tmp_path / "store.db") as store:
        await store.write(create)
        with failpoint.armed("store.commit.before", lambda: reached.append(time), time=time):
            async with asyncio.TaskGroup() as group:
                first = group.create_task(store.write(holds))
                others = [group.create_task(store.write(insert(number))) for number in range(2 * GROUP)]
                await Elsewhere()
                assert not first.done()
                queued.set()
    assert [task.result() for task in others] == [1] * (2 * GROUP)
    assert len(reached) == expected


async def test_a_unit_runs_in_the_context_of_its_caller(tmp_path: Path) -> None:
    """So what it logs carries the request's id."""
    name = contextvars.ContextVar("name", default="nobody")

    async def unit(tx: Transaction) -> str:
        return name.get()

    async def ask(who: str) -> str:
        name.set(who)
        return await store.read(unit)

    async with open_sqlite(tmp_path / "store.db") as store, asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(who)) for who in ("ada", "grace")]
    assert [task.result() for task in asked] == ["ada", "grace"]


async def test_commits_and_units_are_counted(tmp_path: Path) -> None:
    """An undone unit is no done one, and a store with room says so."""
    metrics = Metrics()
    async with open_sqlite(tmp_path / "store.db", metrics=metrics) as store:
        await store.write(create)
        await store.write(insert(1))
        with pytest.raises(Duplicate):
            await store.write(insert(1))
    assert metrics.value("sojourn_store_commits_total") == 3
    assert metrics.value("sojourn_store_units_total", outcome="done") == 2
    assert metrics.value("sojourn_store_units_total", outcome="undone") == 1
    assert metrics.value("sojourn_store_full") == 0
