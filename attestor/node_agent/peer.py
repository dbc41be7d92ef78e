"""Who is on the socket, and is it still the same process.

The kernel says who called `connect`: SO_PEERCRED by number, SO_PEERPIDFD (Linux 6.5) by a descriptor of the process
itself. A number may have gone to another process between the connect and our look; a descriptor can't. Without the
second the number is opened, and that a process died and left its number in between can't be excluded: such a peer is
not `certain` and its attestation is the weakest there is (traps 37).

Credentials stay those of the *connecter*. A child that inherits the descriptor speaks in the name of a process that
may be dead, so `check` is asked again before every message; while the connecter lives, what its child asks for is
asked for by the connecter, as far as anybody can tell (traps 9).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from attestor.instance import Binding, Strength
from attestor.methods.workload.cgroup import Cgroup
from attestor.methods.workload.proc import CallerGone, process_folder, whole
from attestor.selector import Selector
from ca.errors import Denied, NotFound

SO_PEERPIDFD = 77
"""Linux 6.5; the socket module has no name for it."""

_CREDENTIALS = struct.Struct("3i")
_DESCRIPTOR = struct.Struct("i")


class CallerUnseen(Denied):
    """The caller is in a pid namespace that ours doesn't contain: nothing can be said of it."""

    code = "caller-unseen"


@dataclass(frozen=True, slots=True)
class ProcessName:
    """A process on this machine, unmistakably: a number is used again, but not in the same tick of the same boot.

    `inode` is that of its pidfd. Since Linux 6.9 no two processes of one boot share it; before, all do and comparing
    it refuses nobody.
    """

    pid: int
    start_time: int
    boot_id: str
    inode: int


@dataclass(slots=True, kw_only=True)
class Peer:
    """The process that called `connect`, held by a descriptor of its own until `close`."""

    name: ProcessName
    uid: int
    gid: int
    certain: bool
    pidfd: int = field(repr=False)

    @property
    def pid(self) -> int:
        """Its number, for people."""
        return self.name.pid

    def is_alive(self) -> bool:
        """Whether the process still runs; a zombie doesn't."""
        return self.pidfd >= 0 and not exited(self.pidfd)

    def check(self) -> None:
        """Raise CallerGone unless it is alive."""
        if not self.is_alive():
            raise CallerGone(f"the process {self.pid} that opened this connection has ended")

    def release(self) -> int:
        """Give the descriptor away: whoever takes it closes it."""
        pidfd, self.pidfd = self.pidfd, -1
        return pidfd

    def close(self) -> None:
        """Let go of the descriptor; idempotent."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass(frozen=True, slots=True)
class Findings:
    """What a process was found to be, and how much that is worth.

    `lineage` are its parents by number and start time; `look` is what of it can be seen again at little cost
    (`Attestor.look_again`); `within` the cgroups of its container, pod and unit; `unsaid` the sources that saw nothing,
    and why.
    """

    selectors: frozenset[Selector]
    strength: Strength
    lineage: tuple[tuple[int, int], ...] = ()
    look: tuple[object, ...] = ()
    within: tuple[tuple[Binding, Cgroup], ...] = ()
    unsaid: tuple[tuple[str, str], ...] = ()

    def same_as(self, other: Findings) -> bool:
        """Whether it is still the program and the user it was, and where it was; its parents may have gone."""
        return (self.selectors, self.strength, self.within) == (other.selectors, other.strength, other.within)


def peer_of(connection: socket.socket, *, option: int = SO_PEERPIDFD) -> Peer:
    """Ask the kernel who is at the other end of `connection`, a Unix socket.

    `option` is the one that answers with a pidfd; a kernel that doesn't know it leads to the weaker way.

    Raises:
        CallerGone: it has ended already.
        CallerUnseen: it has no number in our pid namespace.
    """
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid <= 0:
        raise CallerUnseen("the caller's process can't be seen from the node agent's pid namespace")
    pidfd, certain = _descriptor(connection, pid, option)
    with _closed_on_error(pidfd):
        if certain and _number(pidfd) != pid:
            raise CallerGone(f"the process {pid} that opened this connection has ended")
        return Peer(name=name_of(pid, pidfd), uid=uid, gid=gid, certain=certain, pidfd=pidfd)


def peer_by_number(pid: int) -> Peer:
    """The process that has the number `pid` now, as it would look if it connected.

    From here on it is held by a descriptor: whoever gets the number later is not taken for it. Whether it is the one
    the asker meant is for the asker to know.

    Raises:
        NotFound: there is none.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise NotFound(f"there is no process `{pid}`") from error
    with _closed_on_error(pidfd):
        try:
            with process_folder(pid) as folder:
                status = folder.status()
            return Peer(
                name=name_of(pid, pidfd),
                uid=int(status["Uid"].split()[1]),
                gid=int(status["Gid"].split()[1]),
                certain=True,
                pidfd=pidfd,
            )
        except Denied as error:
            raise NotFound(f"the process `{pid}` has ended") from error


def name_of(pid: int, pidfd: int) -> ProcessName:
    """The full name of the process `pidfd`, whose number is `pid`.

    Raises:
        CallerGone: it has ended; while it runs nobody else has its number, so asking last makes the answer sure.
    """
    with process_folder(pid) as folder:
        start = folder.start_time()
    if exited(pidfd):
        raise CallerGone(f"the process {pid} has ended")
    return ProcessName(pid=pid, start_time=start, boot_id=boot_id(), inode=os.fstat(pidfd).st_ino)


def reopen(name: ProcessName) -> int | None:
    """A pidfd of the process that had this name when it was written down, or None when that one is gone."""
    if name.boot_id != boot_id():
        return None
    try:
        pidfd = os.pidfd_open(name.pid)
    except OSError:
        return None
    try:
        same = name_of(name.pid, pidfd) == name
    except CallerGone:
        same = False
    if not same:
        os.close(pidfd)
        return None
    return pidfd


def exited(pidfd: int) -> bool:
    """Whether the process behind `pidfd` has ended: only then is it readable."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


@cache
def boot_id() -> str:
    """What the kernel calls this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()


def _descriptor(connection: socket.socket, pid: int, option: int) -> tuple[int, bool]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, option, _DESCRIPTOR.size)
    except OSError as error:
        # Only a kernel that doesn't know the option leads to the weaker way; some say ESRCH of a reaped process.
        if error.errno != errno.ENOPROTOOPT:
            raise CallerGone(f"the process {pid} that opened this connection has ended") from error
    else:
        return _DESCRIPTOR.unpack(raw)[0], True
    try:
        return os.pidfd_open(pid), False
    except OSError as error:
        raise CallerGone(f"the process {pid} that opened this connection has ended") from error


def _number(pidfd: int) -> int:
    """The number the kernel gives for `pidfd`: -1 once the process has been reaped."""
    facts = whole(os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC))
    found = re.search(rb"^Pid:\s*(-?\d+)$", facts, re.MULTILINE)
    return int(found[1]) if found else -1


@contextlib.contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
