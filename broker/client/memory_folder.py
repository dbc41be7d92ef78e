"""A private folder in memory for what a child reads, and nothing of it left when its owner was killed.

It is locked for as long as its owner lives. A folder nobody holds the lock of was left by a process that could not
clean up; the next one that makes a folder removes it. Nothing is ever written where it would reach a disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ca.errors import Unavailable
from ca.runtime.secret import Secret

_NEW, _LIVE = "sojourn-new-", "sojourn-run-"
_SHARED = Path("/dev/shm")  # noqa: S108 - folders of mode 0700 are made in it
_KINDS = frozenset({"tmpfs", "ramfs"})


@dataclass(slots=True)
class MemoryFolder:
    """One folder, made by `make`; `user` is the uid its files belong to."""

    path: Path
    lock: int
    user: int | None

    @classmethod
    def make(cls, user: int | None = None, environment: Mapping[str, str] = os.environ, shared: Path = _SHARED) -> Self:
        """A new one, in `shared` or where the environment says.

        Raises:
            Unavailable: this machine has no folder in memory where we may write.
        """
        home = _home(environment, shared)
        _sweep(home)
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=home))
        lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = new.with_name(_LIVE + new.name.removeprefix(_NEW))
        new.rename(path)  # only under this name it is looked at by others, and by now it is locked
        if user is not None:
            os.chown(path, user, user)
        return cls(path, lock, user)

    def write(self, name: str, value: Secret) -> Path:
        """Let the file `name` hold `value`, of mode 0600; whoever reads it sees the old value or the new one."""
        path, half = self.path / name, self.path / f".{name}"
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value.reveal())
            if self.user is not None:
                os.fchown(descriptor, self.user, self.user)
        half.replace(path)
        return path

    def remove(self) -> None:
        """Take it away."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def _home(environment: Mapping[str, str], shared: Path) -> Path:
    said = environment.get("XDG_RUNTIME_DIR")
    for place in (shared, *([Path(said)] if said else [])):
        if os.access(place, os.W_OK | os.X_OK) and _in_memory(place):
            return place
    raise Unavailable("there is no folder in memory for private files: say --fd, or mount a tmpfs at /dev/shm")


def _in_memory(place: Path) -> bool:
    """Whether the nearest mount above `place` is of memory."""
    found = ""
    longest = -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        if place.resolve().is_relative_to(point) and len(point) >= longest:  # the later one of two covers the first
            found, longest = after.split(" ")[0], len(point)
    return found in _KINDS


def _sweep(home: Path) -> None:
    """Remove what this user's dead processes left."""
    for path in home.glob(f"{_LIVE}*"):
        with contextlib.suppress(OSError):  # it is another user's, or goes at this very moment
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
