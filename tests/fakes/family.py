"""Real processes that start others, which then connect to us: children, grandchildren, and those that ran away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes.caller import Caller, caller, has_ended

_CONNECT = "import socket, signal\nc = socket.socket(socket.AF_UNIX)\nc.connect({path!r})\nsignal.pause()"

STRAIGHT = "[{python!r}, '-c', {connect!r}]"
"""How a child is started: by itself,"""
BY_A_SHELL = "['/bin/sh', '-c', {python!r} + ' -c \"$0\" & wait', {connect!r}]"
"""by a shell that waits for it,"""
RUN_AWAY = "[{python!r}, '-c', 'import os\\nif os.fork(): os._exit(0)\\nos.setsid()\\n' + {connect!r}]"
"""or by one that ends at once."""

_START = """
import subprocess
os.read(0, 1)
child = subprocess.Popen({way}, stdin=subprocess.DEVNULL)
{after}
os.read(0, 1)
"""


@dataclass
class Child:
    """Whom a process started, and our end of its connection."""

    pid: int
    connection: socket.socket


@dataclass
class Parent:
    """A process that connected and may start another."""

    caller: Caller
    listener: socket.socket

    @contextlib.contextmanager
    def child(self) -> Iterator[Child]:
        """Let it start its child; killed at the end."""
        self.caller.tell()
        connection, _ = self.listener.accept()
        pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        try:
            yield Child(pid, connection)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            has_ended(pid)
            connection.close()


@contextlib.contextmanager
def parent(folder: Path, way: str, *, after: str = "") -> Iterator[Parent]:
    """A process that will start another in that way, and does `after` when it did."""
    path = str(folder / f"child-{os.urandom(4).hex()}")
    connect = _CONNECT.format(path=path)
    started = way.format(python=sys.executable, connect=connect)
    if way is RUN_AWAY:
        after = f"child.wait()\n{after}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(60)
        with caller(folder, then=_START.format(way=started, after=after)) as one:
            yield Parent(one, listener)
