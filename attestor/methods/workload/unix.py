"""What the operating system says of a process: user, groups, executable.

    unix:uid:1000  unix:user:alice  unix:gid:1000  unix:group:alice  unix:supplementary_gid:27
    unix:path:/usr/bin/agent  unix:sha256:<hex>  unix:self:true

Only the user is a boundary (traps 9). Path and sha256 narrow it: an interpreter's path attests nothing, and whoever may
trace a process speaks through it. `unix:self` is said of the node agent's own process and of no other.

A path is a name in a mount namespace. A process in one of its own, which any user may make, can run its own file
under any name; so the path is only said when the same name leads *us* to the very file that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import hashlib
import os
import pwd
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from stat import S_ISREG
from weakref import WeakValueDictionary

from attestor.methods.workload.proc import CallerGone, ProcessFolder, process_folder
from attestor.methods.workload.protocol import Subject
from attestor.selector import Selector
from ca.errors import Malformed
from ca.runtime.clock import Clock

HASH_LIMIT = 256 * 1024 * 1024
"""Larger executables get no sha256 unless settings say otherwise: whoever starts one must not keep us busy."""

REMEMBERED = 5.0
"""Seconds for which names and paths are believed: who connects again and again does not ask a directory each time."""

_CACHED = 1024
_BLOCK = 1024 * 1024
_SELF = frozenset({Selector("unix", "self:true")})
_MOST_GROUPS = 128  # those behind them are not said: fewer selectors never give more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What of a process can be seen without asking anybody; everything that is said of it follows from this."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    file: tuple[int, ...] | None
    """The version of what it runs, as `_version` has it; None where we may not know, or don't want to."""
    mode: int
    link: str | None
    """Under which name it says to run it."""


class UnixSource:
    """Selectors of the type `unix`.

    Files are hashed and names looked up in two threads of their own: a slow directory service or a large executable
    delays the process that brings it, not the node agent. One look per user at a time, so that whoever brings a crowd
    of large executables waits for them alone.

    With a `clock` what was said is remembered for `REMEMBERED` seconds, for whoever looks the same to the last detail:
    the user, the groups, the version of the file. That is looked at for every process, every time.
    """

    name = "unix"

    def __init__(self, *, discover_path: bool = True, hash_limit: int = HASH_LIMIT, clock: Clock | None = None) -> None:
        self._discover_path = discover_path
        self._hash_limit = hash_limit
        self._clock = clock
        self._hashes: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._said: OrderedDict[_Seen, tuple[float, frozenset[Selector]]] = OrderedDict()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="unix-source")
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        with process_folder(os.getpid()) as folder:
            self._own = (os.getpid(), folder.start_time())

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """Look at `subject`. Raises CallerGone when it ends meanwhile."""
        said = self._remembered(subject) if self._clock is not None else None
        if said is None:
            said = await self._looked(subject)
        return said | _SELF if (subject.pid, subject.start_time) == self._own else said

    def close(self) -> None:
        """Let the threads go; what is being looked up is finished first."""
        self._threads.shutdown()

    async def _looked(self, subject: Subject) -> frozenset[Selector]:
        async with self._turns.setdefault(subject.uid, asyncio.Lock()):
            # The thread gets a descriptor of its own: it may still read when we are cancelled and ours is closed.
            folder = subject.folder.duplicate()
            looking = self._threads.submit(self._look, replace(subject, folder=folder))
            looking.add_done_callback(lambda _: folder.close())
            seen, values = await asyncio.wrap_future(looking)
        said = frozenset(_selectors(values))
        if self._clock is not None:
            self._said[seen] = self._clock.boot() + REMEMBERED, said
            while len(self._said) > _CACHED:
                self._said.popitem(last=False)
        return said

    def _remembered(self, subject: Subject) -> frozenset[Selector] | None:
        seen = self._see(subject)
        until, said = self._said.get(seen, (0.0, frozenset[Selector]()))
        if self._clock is not None and self._clock.boot() < until:
            return said
        self._said.pop(seen, None)
        return None

    def _look(self, subject: Subject) -> tuple[_Seen, list[str]]:
        seen = self._see(subject)
        return seen, [*_user(seen), *self._file(subject.folder, seen)]

    def _see(self, subject: Subject) -> _Seen:
        groups = tuple(map(int, subject.folder.status().get("Groups", "").split()[:_MOST_GROUPS]))
        runs = subject.folder.executable() if self._discover_path else None
        return _Seen(
            uid=subject.uid,
            gid=subject.gid,
            groups=groups,
            file=None if runs is None else _version(runs),
            mode=0 if runs is None else runs.st_mode,
            link=None if runs is None else _link(subject.folder),
        )

    def _file(self, folder: ProcessFolder, seen: _Seen) -> Iterator[str]:
        if seen.file is None:
            return
        if seen.link is not None and _is_at(seen.link, seen.file):
            yield f"path:{seen.link}"
        digest = self._digest(folder, seen.file) if S_ISREG(seen.mode) else None
        if digest is not None:
            yield f"sha256:{digest}"

    def _digest(self, folder: ProcessFolder, version: tuple[int, ...]) -> str | None:
        if version[-1] > self._hash_limit:
            return None
        known = self._hashes.get(version)
        if known is not None:
            return known
        digest = _sha256(folder, version)
        if digest is not None:
            self._hashes[version] = digest
            while len(self._hashes) > _CACHED:
                self._hashes.popitem(last=False)
        return digest


def _user(seen: _Seen) -> Iterator[str]:
    yield f"uid:{seen.uid}"
    yield f"gid:{seen.gid}"
    yield from _name("user", lambda: pwd.getpwuid(seen.uid).pw_name)
    yield from _name("group", lambda: grp.getgrgid(seen.gid).gr_name)
    for gid in seen.groups:
        yield f"supplementary_gid:{gid}"
        yield from _name("supplementary_group", lambda gid=gid: grp.getgrgid(gid).gr_name)  # type: ignore[misc]


def _selectors(values: list[str]) -> Iterator[Selector]:
    for value in values:
        with contextlib.suppress(Malformed):  # a file may have any name, a line break in it too: such a one has none
            yield Selector.parse(f"unix:{value}")


def _name(kind: str, lookup: Callable[[], str]) -> Iterator[str]:
    """One selector with a name in it, where the system has a name. A directory that is down has none."""
    try:
        name = lookup()
    except (KeyError, OSError):
        return
    yield f"{kind}:{name}"


def _link(folder: ProcessFolder) -> str | None:
    try:
        return os.readlink("exe", dir_fd=folder.descriptor)
    except OSError:
        return None


def _is_at(path: str, version: tuple[int, ...]) -> bool:
    """Whether that name leads *us* to the file that runs."""
    try:
        ours = os.stat(path)  # noqa: PTH116 - a name as the kernel gave it, not a path of ours
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == version[:2]


def _version(file: os.stat_result) -> tuple[int, ...]:
    return (file.st_dev, file.st_ino, file.st_mtime_ns, file.st_ctime_ns, file.st_size)


def _sha256(folder: ProcessFolder, version: tuple[int, ...]) -> str | None:
    """The digest of what runs, or None when the file isn't that version before *and* after, or can't be read."""
    digest = hashlib.sha256()
    try:
        with open(os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder.descriptor), "rb", 0) as file:  # noqa: PTH123
            if _version(os.fstat(file.fileno())) != version:
                return None
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest() if _version(os.fstat(file.fileno())) == version else None
    except ProcessLookupError as error:
        raise CallerGone("the calling process has ended") from error
    except OSError:
        return None
