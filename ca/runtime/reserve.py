"""Room kept aside for the day the disk is full, so that access can still be ended (law 3, traps 12).

A file beside the store holds real blocks. When the store can't grow the file is removed, which gives exactly that much
room to whatever takes access away; making it again is also the test for whether the disk has room once more.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOCK = 512
_PAGE = 4096


class Reserve:
    """`size` bytes at `path`; zero means that none is kept."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def make(self) -> bool:
        """Have the room set aside; False when the disk doesn't have it.

        Raises:
            OSError: something else is wrong with the place.
        """
        if self._held():
            return True
        self.drop()
        try:
            with _private_file(self._path) as descriptor:
                if self._size:
                    os.posix_fallocate(descriptor, 0, self._size)
        except OSError as error:
            self.drop()
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    def drop(self) -> None:
        """Give the room back to the disk."""
        self._path.unlink(missing_ok=True)

    def _held(self) -> bool:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        return found.st_size == self._size and found.st_blocks * _BLOCK >= self._size


def has_room(beside: Path) -> bool:
    """Whether a file next to `beside` could grow past the length of `beside`.

    SQLite calls a spent quota (EDQUOT) and the limit on a file's length (EFBIG) an I/O error. They are full disks, and
    only the operating system's own number tells them apart: so one page is written where `beside` ends.
    """
    probe = beside.with_name(beside.name + ".probe")
    try:
        with _private_file(probe) as descriptor:
            os.pwrite(descriptor, bytes(_PAGE), beside.stat().st_size if beside.exists() else 0)
    except OSError as error:
        return error.errno not in _NO_ROOM
    finally:
        probe.unlink(missing_ok=True)
    return True


@contextmanager
def _private_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
