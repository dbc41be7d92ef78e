"""Traps 12: on a full disk what gives access stops and what ends it goes on.

The disk is a real one of 1 MiB where this user may mount one; a limit on the length of files, which needs no privilege,
is tried always. Each runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from ca.runtime.database import Database, StoreFull, Transaction, migrate
from ca.runtime.sqlite import open_sqlite

MIB = 1024 * 1024
RESERVE = 128 * 1024
DISKS = ["file-length", *(["tmpfs"] if os.geteuid() == 0 else [])]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "sojourn-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@asynccontextmanager
async def store_in(folder: Path) -> AsyncIterator[Database]:
    """A store with the few tables of the story."""
    async with open_sqlite(folder / "store.db", reserve=RESERVE) as store:

        async def unit(tx: Transaction) -> None:
            await tx.execute("CREATE TABLE IF NOT EXISTS lease (id BIGINT PRIMARY KEY, state TEXT, body BYTEA)")

        await store.write(unit, ending=True)
        yield store


async def grant(store: Database, number: int, size: int = 16_000) -> None:
    """Give something; the row replaces what was there, so the file itself needs no more room."""

    async def unit(tx: Transaction) -> None:
        await tx.execute("DELETE FROM lease WHERE id = $1", number)
        await tx.execute("INSERT INTO lease (id, state, body) VALUES ($1, 'active', $2)", number, os.urandom(size))

    await store.write(unit)


async def revoke(store: Database, number: int) -> int:
    """Take it away."""

    async def unit(tx: Transaction) -> int:
        return await tx.execute("UPDATE lease SET state = 'revoked' WHERE id = $1", number)

    return await store.write(unit, ending=True)


async def states(store: Database) -> dict[int, str]:
    """What is recorded."""

    async def unit(tx: Transaction) -> dict[int, str]:
        return {row["id"]: row["state"] for row in await tx.fetch("SELECT id, state FROM lease ORDER BY id")}

    return await store.read(unit)


def fill(folder: Path, name: str, *, but: int = 0) -> Path:
    """Leave no more than `but` free bytes."""
    ballast = folder / name
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - but)
    return ballast


async def on_a_disk_that_somebody_else_fills(folder: Path) -> None:
    """Grants stop and change nothing; endings go on, many of them, and survive; grants return with the room."""
    async with store_in(folder) as store:
        for number in range(8):
            await grant(store, number)
        ballast = fill(folder, "ballast")
        answers = await asyncio.gather(
            grant(store, 100), revoke(store, 0), grant(store, 101), revoke(store, 1), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [StoreFull, int, StoreFull, int], answers
        fill(folder, "more", but=RESERVE // 2)
        with pytest.raises(StoreFull):
            await grant(store, 102, size=1)
        assert not (folder / "store.db.reserve").exists()
        for _ in range(100):
            assert await revoke(store, 2) == 1
        expected = {0: "revoked", 1: "revoked", 2: "revoked"} | dict.fromkeys(range(3, 8), "active")
        assert await states(store) == expected
    async with store_in(folder) as store:
        assert await states(store) == expected
        with pytest.raises(StoreFull):
            await grant(store, 103)
        assert await revoke(store, 3) == 1
        await migrate(store, "nothing", Path(folder))
        ballast.unlink()
        await grant(store, 104)
        assert (folder / "store.db.reserve").stat().st_size == RESERVE
        assert (await states(store))[104] == "active"


async def on_files_that_must_not_grow(folder: Path) -> None:
    """SQLite calls it an I/O error; it is a full disk all the same, and no reason to end the process."""
    async with store_in(folder) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, resource.RLIM_INFINITY))
        for number in range(20):
            await grant(store, number)
            answers = await asyncio.gather(
                grant(store, 100, size=MIB), revoke(store, number), grant(store, 101), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [StoreFull, int, StoreFull], answers
        expected = dict.fromkeys(range(20), "revoked")
        assert await states(store) == expected
    async with store_in(folder) as store:
        assert await states(store) == expected


def tell(disk: str, folder: Path) -> None:
    """The story on one kind of disk, in this process."""
    if disk == "tmpfs":
        with small_disk(folder / "disk") as small:
            asyncio.run(on_a_disk_that_somebody_else_fills(small))
    else:
        asyncio.run(on_files_that_must_not_grow(folder))


@pytest.mark.parametrize("disk", DISKS)
def test_a_full_disk_stops_grants_and_no_ending(disk: str, tmp_path: Path) -> None:
    """Refused grants leave no trace, revocations are durable, and the process lives through it."""
    child = subprocess.run(
        [sys.executable, __file__, disk, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout == "told\n"


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    tell(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.write("told\n")
