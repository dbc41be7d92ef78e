"""A child process inside a task: it gets its secrets, nothing else of ours, and it ends with everything it started.

Where the kernel lets us, the child has a cgroup of its own and ends by `cgroup.kill`, daemonised grandchildren too.
Elsewhere this process becomes their subreaper and ends what it can see. In both cases the child dies when this process
does (PDEATHSIG). It stays in this process's group, so that a terminal speaks to both. A secret reaches the child as a
descriptor of memory, a private file in memory, or a named variable; a reader of the same uid can see each of them while
the child runs (docs/threat-model.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from broker.client.memory_folder import MemoryFolder
from ca.errors import Malformed, NotFound
from ca.runtime.secret import Secret

_OURS = ("SOJOURN_", "SPIFFE_")
_PDEATHSIG, _SUBREAPER = 1, 36
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT)
_CGROUPS = Path("/sys/fs/cgroup")


class Delivery(StrEnum):
    """How one value reaches the child."""

    VARIABLE = "variable"  # the variable holds the value
    FILE = "file"  # the variable holds the path of a private file
    DESCRIPTOR = "descriptor"  # the variable holds the number of a descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """One variable of the child's environment, and what stands behind it."""

    variable: str
    value: Secret
    delivery: Delivery


@dataclass(slots=True)
class Child:
    """A running child; leave it by `end()`."""

    process: subprocess.Popen[bytes]
    cgroup: Path | None
    files: MemoryFolder | None
    others: frozenset[int]
    """This process's children from before: not the child's, and not to be ended with it."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> int:
        """Its exit code as a shell tells it: 128 + the signal's number when a signal ended it."""
        await self.ended.wait()
        code = self.process.returncode
        return 128 - code if code < 0 else code

    def rewrite(self, gifts: Sequence[Gift]) -> None:
        """Let the private files hold these values; what it was given otherwise can't be changed any more."""
        for gift in gifts:
            if gift.delivery is Delivery.FILE and self.files is not None:
                self.files.write(gift.variable, gift.value)

    async def end(self) -> None:
        """End it and everything it started; return when nothing of it is left."""
        if self.cgroup is not None:
            await asyncio.to_thread(_kill_cgroup, self.cgroup)
        elif self.process.poll() is None:
            self.process.kill()
        await asyncio.to_thread(self.process.wait)
        if self.cgroup is None:
            await asyncio.to_thread(_kill_descendants, self.others)
        if self.files is not None:
            self.files.remove()


def start(command: Sequence[str], gifts: Sequence[Gift], *, user: int | None = None, own_cgroup: bool = True) -> Child:
    """Start `command` with this process's environment, less what is ours, plus `gifts`.

    Call it on the event loop's thread; `user` is the uid to drop to, with the same number as its group;
    without `own_cgroup` its descendants are ended one by one even where a cgroup could be had.

    Raises:
        NotFound: there is no such program.
        Malformed: two gifts want the same variable.
    """
    names = [gift.variable for gift in gifts]
    if len(set(names)) != len(names):
        raise Malformed("two secrets want the same variable")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    files = MemoryFolder.make(user) if any(gift.delivery is Delivery.FILE for gift in gifts) else None
    passed: list[int] = []
    cgroup, others = _own_cgroup() if own_cgroup else None, _children()
    try:
        for gift in gifts:
            environment[gift.variable] = _deliver(gift, files, passed)
        child = Child(_spawn(command, environment, passed, cgroup, user), cgroup, files, others)
    except BaseException:
        _forget(cgroup, files)
        raise
    finally:
        for descriptor in passed:
            os.close(descriptor)
    _watch(child)
    return child


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], passed: Sequence[int], cgroup: Path | None, user: int | None
) -> subprocess.Popen[bytes]:
    libc, parent = ctypes.CDLL(None), os.getpid()
    if cgroup is None:
        libc.prctl(_SUBREAPER, 1)

    def before_exec() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text("0")  # entered before exec: no moment of it passes outside
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        libc.prctl(_PDEATHSIG, signal.SIGKILL)  # after the change of uid, which would clear it
        if os.getppid() != parent:
            os._exit(126)

    try:
        return subprocess.Popen(  # noqa: S603 - the command is the user's own
            list(command),
            env=dict(environment),
            pass_fds=tuple(passed),
            preexec_fn=before_exec,  # noqa: PLW1509 - a few system calls, nothing that takes a lock
        )
    except FileNotFoundError as error:
        raise NotFound(f"there is no program `{command[0]}`") from error
    except PermissionError as error:
        raise NotFound(f"`{command[0]}` can't be run: {error.strerror}") from error


def _deliver(gift: Gift, files: MemoryFolder | None, passed: list[int]) -> str:
    value = gift.value.reveal()
    if gift.delivery is Delivery.VARIABLE:
        return value
    if gift.delivery is Delivery.DESCRIPTOR:
        descriptor = os.memfd_create("secret", 0)
        os.write(descriptor, value.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        passed.append(descriptor)
        return str(descriptor)
    assert files is not None
    return str(files.write(gift.variable, gift.value))


def _own_cgroup() -> Path | None:
    """A new empty cgroup below this process's own; None where that isn't allowed."""
    try:
        own = next(
            line.split("::", 1)[1]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
        place = _CGROUPS / own.lstrip("/") / f"run-{os.getpid()}-{os.urandom(4).hex()}"
        place.mkdir()
    except (OSError, StopIteration):
        return None
    if not os.access(place / "cgroup.kill", os.W_OK) or not os.access(place / "cgroup.procs", os.W_OK):
        place.rmdir()
        return None
    return place


def _kill_cgroup(cgroup: Path) -> None:
    (cgroup / "cgroup.kill").write_text("1")
    events = cgroup / "cgroup.events"
    while "populated 1" in events.read_text():
        os.sched_yield()
    with contextlib.suppress(OSError):
        cgroup.rmdir()


def _children() -> frozenset[int]:
    return frozenset(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def _kill_descendants(others: frozenset[int]) -> None:
    """As subreaper: every orphan of the child has become ours; end them until none is left, and nobody else."""
    while orphans := _children() - others:
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, 0)


def _forget(cgroup: Path | None, files: MemoryFolder | None) -> None:
    if cgroup is not None:
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    if files is not None:
        files.remove()


def _watch(child: Child) -> None:
    """Tell `ended` when the process is gone; pass signals on, but those its terminal sent it as well."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(child.process.pid)

    def gone() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        child.process.wait()
        loop.call_soon(loop.call_soon, child.ended.set)  # a key of the terminal from before it ended is heard first

    loop.add_reader(pidfd, gone)

    def unless_the_terminal_did(number: int) -> None:
        if not _in_foreground():
            child.process.send_signal(number)

    for number in _OF_TERMINALS:
        loop.add_signal_handler(number, unless_the_terminal_did, number)
    for number in _FORWARDED:
        loop.add_signal_handler(number, child.process.send_signal, number)


def _in_foreground() -> bool:
    """Whether a key of a terminal reaches this process, and so everything in its group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
