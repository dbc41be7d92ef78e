"""An open `/proc/<pid>`: what the kernel tells about one process.

The folder is opened once and everything is read through its descriptor. When the process ends the number may go to
another, but the descriptor does not: reading fails instead. Whoever opens a folder asks the process's pidfd
*afterwards* whether it still runs; if so the folder is that process's, for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ca.errors import Denied

_PARENT, _START_TIME = 1, 19  # proc(5): fields 4 and 22 of stat, counted from the one behind the name

_WHOSE = ("Uid", "Gid", "Groups")
_MOST = 65536


class CallerGone(Denied):
    """The process that called has ended, or is no longer the one that called."""

    code = "caller-gone"


@dataclass(frozen=True, slots=True)
class ProcessFolder:
    """An open `/proc/<pid>`."""

    descriptor: int

    def start_time(self) -> int:
        """Clock ticks after boot at which the process began. Raises CallerGone."""
        return self._number(_START_TIME)

    def parent(self) -> int:
        """The number of its parent, 0 where that is outside of our pid namespace. Raises CallerGone."""
        return self._number(_PARENT)

    def status(self) -> Mapping[str, str]:
        """The lines of `status` that say whose it is (`Uid`, `Gid`, `Groups`), by name. Raises CallerGone."""
        status = self.read("status")
        places = [(name, status.find(b"\n%b:" % name.encode()) + len(name) + 2) for name in _WHOSE]
        return {
            name: status[at : status.index(b"\n", at)].decode().strip() for name, at in places if at > len(name) + 1
        }

    def _number(self, place: int) -> int:
        stat = self.read("stat")
        # The name stands in brackets and may itself hold brackets and blanks: only what follows the last is fixed.
        return int(stat[stat.rindex(b")") + 2 :].split()[place])

    def read(self, name: str) -> bytes:
        """One of its small files, whole. Raises CallerGone once the process is no more."""
        try:
            return whole(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor))
        except (ProcessLookupError, FileNotFoundError) as error:
            raise CallerGone("the calling process has ended") from error

    def executable(self) -> os.stat_result | None:
        """The file it runs, or None where we may not know: it hides from us, or is no ordinary process."""
        try:
            return os.stat("exe", dir_fd=self.descriptor)
        except OSError:
            return None

    def duplicate(self) -> ProcessFolder:
        """The same folder by a descriptor of its own, to be closed by whoever took it."""
        return ProcessFolder(os.dup(self.descriptor))

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.descriptor)


@contextmanager
def process_folder(pid: int) -> Iterator[ProcessFolder]:
    """Open `/proc/<pid>`; ask the pidfd whether it is alive before believing what it says.

    Raises:
        CallerGone: nobody has this number.
    """
    try:
        descriptor = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise CallerGone(f"the process {pid} has ended") from error
    folder = ProcessFolder(descriptor)
    try:
        yield folder
    finally:
        folder.close()


def whole(descriptor: int) -> bytes:
    """All there is to read; the descriptor is closed."""
    try:
        found = os.read(descriptor, _MOST)
        while more := os.read(descriptor, _MOST):
            found += more
        return found
    finally:
        os.close(descriptor)
