"""Which process or cgroup is which instance, written down before the first leaf is handed over.

Without it every restart of the node agent would either end all tasks or miss every death (traps 3). A line is one fact
in JSON: an instance began as this process or cgroup, or it ended. Beginnings are waited for until they are on the disk;
ends are not: an end that was lost is found again, because what it was is no more.

Lines that arrive together share one write and one sync. When the write fails (a full disk) the file is cut back to
where it was and that hand-over is refused; when the *sync* fails nobody knows what is on the disk any more, and
nothing is handed over until the node agent starts anew. A line that can't be read is as good as none: its instance is
reported as gone, which ends its task and gives nothing to anybody.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from attestor.node_agent.cgroups import CgroupName
from attestor.node_agent.peer import ProcessName
from ca.errors import Conflict, Unavailable
from ca.runtime import failpoint

Name = ProcessName | CgroupName
"""What an instance is on this machine."""
COMPACT_AT = 1024 * 1024
"""Bytes below which old lines are not worth removing."""


class Journal:
    """The open journal; one node agent at a time."""

    def __init__(self, path: Path, *, compact_at: int = COMPACT_AT) -> None:
        """Open or create the file at `path` and lock it.

        Raises:
            Conflict: another node agent has it open.
            Unavailable: it can't be read or written.
        """
        self._path, self._compact_at = path, compact_at
        self._locked = _lock(path.with_suffix(".lock"))
        try:
            self._live = _read(path)
            self._file = self._opened()
        except OSError as error:
            os.close(self._locked)
            raise Unavailable(f"can't open the journal `{path}`: {error.strerror}") from error
        self._pending: list[tuple[bytes, str, Name | None, Future[None]]] = []
        self._guard = Lock()
        self._broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    @property
    def live(self) -> Mapping[str, Name]:
        """The instances that began and have not ended, as written."""
        return dict(self._live)

    async def begin(self, instance: str, name: Name) -> None:
        """Return once it is on the disk that `instance` is the process or cgroup `name`.

        Raises:
            Unavailable: it could not be written; nothing may be handed over.
        """
        failpoint.reach("node_agent.journal.before")
        await asyncio.shield(asyncio.wrap_future(self._append(instance, name)))
        failpoint.reach("node_agent.journal.after")

    def end(self, instance: str) -> None:
        """Note that `instance` ended, as soon as the disk has time for it."""
        # Whether it succeeds is no matter: the process is gone and will be found gone.
        self._append(instance, None).add_done_callback(Future.exception)

    def close(self) -> None:
        """Write what is left and unlock."""
        self._thread.shutdown()
        os.close(self._file)
        os.close(self._locked)

    def _append(self, instance: str, name: Name | None) -> Future[None]:
        written: Future[None] = Future()
        with self._guard:
            self._pending.append((_line(instance, name), instance, name, written))
        self._thread.submit(self._flush)
        return written

    def _flush(self) -> None:
        with self._guard:
            batch, self._pending = self._pending, []
        if not batch:
            return
        try:
            self._write(b"".join(line for line, *_ in batch))
        except Unavailable as error:
            for *_, written in batch:
                written.set_exception(error)
            return
        for _, instance, name, written in batch:
            if name is None:
                self._live.pop(instance, None)
            else:
                self._live[instance] = name
            written.set_result(None)
        self._compact()

    def _write(self, data: bytes) -> None:
        if self._broken:
            raise Unavailable("the journal of instances could not be synced to the disk: restart the node agent")
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            os.ftruncate(self._file, end)
            raise Unavailable(f"can't write the journal of instances: {error.strerror}") from error
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = True
            raise Unavailable(f"can't sync the journal of instances: {error.strerror}") from error

    def _compact(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._compact_at or size < 8 * sum(len(_line(*item)) for item in self._live.items()):
            return
        try:
            new = self._written_anew()
        except OSError:
            return  # the long file is as good as the short one; the next line tries again
        os.close(self._file)
        self._file = new

    def _opened(self) -> int:
        try:
            return self._written_anew()
        except OSError:  # a full disk: who lives must be known all the same, to be ended when it dies
            return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def _written_anew(self) -> int:
        """A new file with only what lives, put in place of the old one."""
        beside = self._path.with_suffix(".new")
        new = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            data = b"".join(_line(*item) for item in self._live.items())
            while data:
                data = data[os.write(new, data) :]
            os.fsync(new)
            beside.replace(self._path)
            _sync_folder(self._path.parent)
        except BaseException:
            os.close(new)
            raise
        return new


def _lock(path: Path) -> int:
    """A lock beside the journal, which is replaced now and then and so can't be the lock itself."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"can't open the node agent's lock `{path}`: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"another node agent uses `{path.parent}`") from error
    return descriptor


def _line(instance: str, name: Name | None) -> bytes:
    fact = {"ended": instance} if name is None else {"instance": instance, **asdict(name)}
    # The break comes first: what was torn off before stays alone on its line.
    return b"\n" + json.dumps(fact, separators=(",", ":")).encode()


def _read(path: Path) -> dict[str, Name]:
    live: dict[str, Name] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            fact = json.loads(line)
            if "ended" in fact:
                live.pop(fact["ended"], None)
            else:
                live[str(fact["instance"])] = _name(fact)
        except (ValueError, TypeError, KeyError):
            continue
    return live


def _name(fact: Mapping[str, Any]) -> Name:
    boot, inode = str(fact["boot_id"]), int(fact["inode"])
    if "path" in fact:
        controllers = tuple(str(one) for one in fact["controllers"])
        return CgroupName(controllers=controllers, path=str(fact["path"]), inode=inode, boot_id=boot)
    return ProcessName(pid=int(fact["pid"]), start_time=int(fact["start_time"]), boot_id=boot, inode=inode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
