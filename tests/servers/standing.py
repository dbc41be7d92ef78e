"""What every server of the tests has in common: free ports, the account it runs as, a group of its own, an end.

A server is the leader of its own process group; it dies with us by PR_SET_PDEATHSIG, and its whole group by signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds after which a server that neither answers nor ends is given up: a guard, no bound."""


MEMORY = Path("/dev/shm")
_ENOUGH = 3 * 2**30
"""Bytes that must be free there."""


class Place:
    """Where servers keep their data: in memory, if there is enough of it, so that a run needs little disk.

    A server that is killed there loses nothing that it wrote, as on a disk; a bench asks for the disk.
    """

    disk = Path("/tmp")
    always_on_disk = False

    @classmethod
    def folder(cls, prefix: str) -> Path:
        """A new one; whoever asks removes it."""
        sweep()
        in_memory = not cls.always_on_disk and _room() > _ENOUGH
        return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=MEMORY if in_memory else cls.disk))


def _room() -> int:
    """Bytes that may be written to memory: of its file system, and of the machine."""
    if not MEMORY.is_dir():
        return 0
    meminfo = Path("/proc/meminfo").read_text().split()
    return min(shutil.disk_usage(MEMORY).free, 1024 * int(meminfo[meminfo.index("MemAvailable:") + 1]))


@cache
def sweep() -> None:
    """Remove, once, what servers left in memory whose run was killed and could not."""
    for folder in MEMORY.glob("sj-*-[0-9]*-*"):
        pid = folder.name.split("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on just now, each another one."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port


def account(*names: str) -> pwd.struct_passwd | None:
    """Whom root runs a server as: the first of `names` there is; None when we aren't root and run it ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in names if name in known)


def give(owner: pwd.struct_passwd | None, *paths: Path) -> None:
    """Let files belong to whom a server runs as."""
    if owner is not None:
        for path in paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)


def identity(owner: pwd.struct_passwd | None) -> Mapping[str, Any]:
    """What `subprocess` is told to run something as `owner`."""
    return {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def launched(
    command: Sequence[str], log: Path, *, owner: pwd.struct_passwd | None = None, **more: Any
) -> subprocess.Popen[bytes]:
    """Start `command` as the leader of a group; what it says is appended to `log`."""
    with log.open("ab") as said:
        return subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of prctl, nothing that takes a lock
            start_new_session=True,
            **identity(owner),
            **more,
        )


def wait(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    """Return when it answers; fails with its last words when it ends before, or hangs."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"it did not start:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.02)
    raise RuntimeError(f"it did not answer:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    """Tell the leader to end, or with SIGKILL the whole group, as a power cut; nothing of the group is left."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(how) if how is not signal.SIGKILL else os.killpg(process.pid, how)
    try:
        process.wait(PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def die_with_parent() -> None:
    """In the child, before it runs its program: the kernel kills it when we are gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
