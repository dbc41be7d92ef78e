"""Real cgroups: made where the kernel keeps them, with processes of a test in them, and removed afterwards.

There is one kernel: who makes some holds a lock until they are gone, so another run of tests beside this one waits.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attestor.methods.workload.cgroup import SYSTEMD
from fakes.caller import Caller


@cache
def mounted(version: str) -> Path:
    """Where version 2, or systemd's own hierarchy of version 1, is mounted; one that is not there is brought."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if (version == "2" and kind == "cgroup2") or (version == "1" and SYSTEMD in options.split(",")):
            return Path(place)
    place = tempfile.mkdtemp(prefix="sj-cgroups-")
    options = "-t cgroup2" if version == "2" else f"-t cgroup -o none,{SYSTEMD}"
    subprocess.run(["mount", *options.split(), "none", place], check=True)
    atexit.register(_unmounted, place)
    return Path(place)


def _unmounted(place: str) -> None:
    subprocess.run(["umount", "-l", place], check=True)
    Path(place).rmdir()


VERSION_2 = mounted("2")

_held: list[int] = []


def place_of(path: str) -> Path:
    """The folder of `2:/system.slice/a.service`, or of `1:/…` in systemd's own hierarchy."""
    version, _, rest = path.partition(":")
    return mounted(version) / rest.lstrip("/")


@contextlib.contextmanager
def cgroup(path: str, *members: Caller) -> Iterator[Path]:
    """The cgroup `path`, made with those above it; `members` are moved into it, and out of it at the end."""
    with _alone() as first:
        place, made = place_of(path), []
        for folder in [place, *place.parents] if first else ():
            with contextlib.suppress(OSError):  # what a killed run left; whatever is used can't be removed
                folder.rmdir()
        for folder in reversed([place, *place.parents]):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        try:
            for one in members:
                move(one.pid, place)
            yield place
        finally:
            _emptied(made)


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """Hold the lock; whether nobody in this process held it already."""
    first = not _held
    lock = os.open(VERSION_2, os.O_RDONLY | os.O_CLOEXEC) if first else -1
    if first:
        fcntl.flock(lock, fcntl.LOCK_EX)
    _held.append(lock)
    try:
        yield first
    finally:
        _held.pop()
        if first:
            os.close(lock)


def move(pid: int, place: Path) -> None:
    """Move a process."""
    (place / "cgroup.procs").write_text(str(pid))


def _emptied(made: list[Path]) -> None:
    for folder in reversed(made):
        if not folder.exists():
            continue
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            _remove(inner)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Whoever is in it goes to the root; what is ending anyway is waited for."""
    root = next(parent for parent in [folder, *folder.parents] if os.path.ismount(parent))
    for _ in range(1000):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                move(int(pid), root)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        os.sched_yield()
    raise AssertionError(f"the cgroup `{folder}` does not become empty")
