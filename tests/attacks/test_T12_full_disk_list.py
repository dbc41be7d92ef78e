"""T12 on the list by which SSH certificates are taken back: nothing more is signed, and what must end ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest

from broker.engines.protocol import Lent
from broker.engines.ssh import ListedSsh, Settings, open_engine
from broker.engines.ssh.ledger import Ledger
from broker.errors import TargetDown
from ca.keys.memory import MemoryKeyStore
from ca.runtime.clock import SystemClock
from fakes.disk import full_disk
from fakes.world import role

DISKS = ["file-length", *(["tmpfs"] if os.geteuid() == 0 else [])]
"""A real disk of 2 MiB where this user may mount one; a limit on the length of files needs no privilege."""


@contextmanager
def place(disk: str, folder: Path) -> Iterator[None]:
    """A folder on such a disk."""
    if disk != "tmpfs":
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "sojourn-test", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(file: IO[bytes]) -> None:
    while file.write(bytes(4096)):
        continue


@contextmanager
def filled(disk: str, path: Path) -> Iterator[None]:
    """No room is left beside what is there, and none for what is kept aside."""
    if disk != "tmpfs":
        path.with_name(f".{path.name}.reserve").unlink()
        with full_disk(path, 4096):
            yield
        return
    with path.with_name("filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        _fill(file)
    yield


@pytest.mark.parametrize("disk", DISKS)
async def test_nothing_is_signed_and_what_must_end_ends(disk: str, tmp_path: Path) -> None:
    """From what was kept aside beside the list."""
    clock, the_role = SystemClock(), role(engine="ssh", settings={"principals": ["a"]})
    lent, path = Lent(clock=clock, target="hosts", keys=MemoryKeyStore()), tmp_path / "krl"
    with place(disk, tmp_path):
        async with open_engine(Settings(host="a", revocations=(path,)), lent) as engine:
            assert isinstance(engine, ListedSsh)
            handles = [engine.plan(the_role, f"sj_aaaaaaaa_{number}") for number in range(40)]
            until = clock.now() + timedelta(minutes=1)
            for handle in handles[:-1]:
                await engine.create(handle, the_role, until, until)
            with filled(disk, path):
                await engine.end_access(handles[0])
                with pytest.raises(TargetDown):
                    await engine.create(handles[-1], the_role, until, until)
                for handle in handles[1:4]:
                    await engine.end_access(handle)
            told = Ledger.decode(path.read_bytes())
            assert [told.is_revoked(handle.name) for handle in handles[:5]] == [True] * 4 + [False]
            assert handles[-1].name not in told.entries
