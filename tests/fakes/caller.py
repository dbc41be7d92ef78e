"""Real processes at the other end of a Unix socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_CONNECT = """
import os, socket, sys
user, groups = sys.argv[2], [int(one) for one in sys.argv[3:]]
if user:
    os.setgroups(groups)
    os.setgid(int(user))
    os.setuid(int(user))
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
os.write(1, b"c")
"""

WAIT = "os.read(0, 1)"
"""What a caller does after it connected, unless told otherwise: wait until its input is closed."""


@dataclass
class Caller:
    """A process that connected to us, and our end of its connection."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"x")
        self.process.stdin.flush()

    def hear(self) -> None:
        """Wait for its next byte."""
        assert self.process.stdout is not None
        assert self.process.stdout.read(1)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


@contextlib.contextmanager
def caller(folder: Path, then: str = WAIT, *, user: int | None = None, groups: Sequence[int] = ()) -> Iterator[Caller]:
    """A process that connected to a socket in `folder` and now does `then`."""
    folder.chmod(0o755)
    path = folder / f"socket-{os.urandom(4).hex()}"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", _CONNECT + then, path.name, str(user or ""), *map(str, groups)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,  # the folders above need not be open to another user
        )
        listener.settimeout(60)
        connection, _ = listener.accept()
        one = Caller(process, connection)
        one.hear()
        try:
            yield one
        finally:
            process.kill()
            process.communicate(timeout=60)
            connection.close()


def has_ended(pid: int) -> bool:
    """Wait until the process `pid`, which need not be a child of ours, has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], 60)[0])
    finally:
        os.close(pidfd)
