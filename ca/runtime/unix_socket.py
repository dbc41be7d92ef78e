"""A Unix socket to listen on: nobody else's replaced, never open to more than was meant, and gone afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ca.errors import Conflict, Malformed, Unauthenticated

BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")


class AlreadyRunning(Conflict):
    """Another process listens there."""

    code = "already-running"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who called `connect`, by the kernel's word at that moment."""

    pid: int
    uid: int
    gid: int


def credentials(connected: socket.socket) -> Credentials:
    """SO_PEERCRED of an accepted socket. Raises Unauthenticated when it has none."""
    try:
        return Credentials(
            *_CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        )
    except OSError as error:
        raise Unauthenticated("the kernel can't say who is at the other end") from error


@contextmanager
def listening(path: Path, *, mode: int = 0o600) -> Iterator[socket.socket]:
    """A socket that listens at `path` with `mode`.

    A lock beside it makes two starts at the same time safe; it goes with the process, so what a dead one left behind is
    simply replaced. Whatever else stands there is left alone.

    Raises:
        AlreadyRunning: another process listens there.
        Malformed: the path can't be used.
    """
    with _lock(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        _remove_dead(path)
        try:
            _bind(listener, path, mode)
        except OSError as error:
            raise Malformed(f"can't listen at `{path}`: {error.strerror or error}") from error
        identity = _identity(path)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            if _identity(path) == identity:
                path.unlink(missing_ok=True)


def _bind(listener: socket.socket, path: Path, mode: int) -> None:
    """Bind with `mode` from the first moment on: Linux takes it from the descriptor, less the umask."""
    os.fchmod(listener.fileno(), mode)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(BACKLOG)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Malformed(f"can't listen at `{path}`: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"already running: another process listens at `{path}`") from error
        yield
    finally:
        os.close(descriptor)


def _remove_dead(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Malformed(f"can't listen at `{path}`: something else is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(str(path))
    if answer not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise AlreadyRunning(f"already running: something answers at `{path}`")
    path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None
