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
from dataclasses import replace
from stat import S_ISREG
from weakref import WeakValueDictionary

from attestor.methods.workload.proc import CallerGone, ProcessFolder, process_folder
from attestor.methods.workload.protocol import Subject
from attestor.selector import Selector
from ca.errors import Malformed

HASH_LIMIT = 256 * 1024 * 1024
"""Larger executables get no sha256 unless settings say otherwise: whoever starts one must not keep us busy."""

_CACHED = 1024
_BLOCK = 1024 * 1024
_MOST_GROUPS = 128  # those behind them are not said: fewer selectors never give more


class UnixSource:
    """Selectors of the type `unix`.

    Files are hashed and names looked up in two threads of their own: a slow directory service or a large executable
    delays the process that brings it, not the node agent. One look per user at a time, so that whoever brings a crowd
    of large executables waits for them alone.
    """

    name = "unix"

    def __init__(self, *, discover_path: bool = True, hash_limit: int = HASH_LIMIT) -> None:
        self._discover_path = discover_path
        self._hash_limit = hash_limit
        self._hashes: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="unix-source")
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        with process_folder(os.getpid()) as folder:
            self._own = (os.getpid(), folder.start_time())

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """Look at `subject`. Raises CallerGone when it ends meanwhile."""
        async with self._turns.setdefault(subject.uid, asyncio.Lock()):
            # The thread gets a descriptor of its own: it may still read when we are cancelled and ours is closed.
            folder = subject.folder.duplicate()
            looking = self._threads.submit(self._look, replace(subject, folder=folder))
            looking.add_done_callback(lambda _: folder.close())
            return frozenset(_selectors(await asyncio.wrap_future(looking)))

    def close(self) -> None:
        """Let the threads go; what is being looked up is finished first."""
        self._threads.shutdown()

    def _look(self, subject: Subject) -> list[str]:
        return [*self._user(subject), *self._file(subject.folder)]

    def _user(self, subject: Subject) -> Iterator[str]:
        yield f"uid:{subject.uid}"
        yield f"gid:{subject.gid}"
        yield from _name("user", lambda: pwd.getpwuid(subject.uid).pw_name)
        yield from _name("group", lambda: grp.getgrgid(subject.gid).gr_name)
        for gid in map(int, subject.folder.status().get("Groups", "").split()[:_MOST_GROUPS]):
            yield f"supplementary_gid:{gid}"
            yield from _name("supplementary_group", lambda gid=gid: grp.getgrgid(gid).gr_name)  # type: ignore[misc]
        if (subject.pid, subject.start_time) == self._own:
            yield "self:true"

    def _file(self, folder: ProcessFolder) -> Iterator[str]:
        runs = folder.executable() if self._discover_path else None
        if runs is None:
            return
        path = _path(folder, runs)
        if path is not None:
            yield f"path:{path}"
        digest = self._digest(folder, runs)
        if digest is not None:
            yield f"sha256:{digest}"

    def _digest(self, folder: ProcessFolder, runs: os.stat_result) -> str | None:
        if not S_ISREG(runs.st_mode) or runs.st_size > self._hash_limit:
            return None
        key = _version(runs)
        known = self._hashes.get(key)
        if known is not None:
            return known
        digest = _sha256(folder, key)
        if digest is not None:
            self._hashes[key] = digest
            while len(self._hashes) > _CACHED:
                self._hashes.popitem(last=False)
        return digest


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


def _path(folder: ProcessFolder, runs: os.stat_result) -> str | None:
    try:
        path = os.readlink("exe", dir_fd=folder.descriptor)
        ours = os.stat(path)  # noqa: PTH116 - a name as the kernel gave it, not a path of ours
    except OSError:
        return None
    return path if os.path.samestat(ours, runs) else None


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
