"""Who changes the lists: one at a time, whole or not at all, durable and read back before anybody is told.

Hosts read the very files. A change is made under a lock beside the first of them, for other brokers and other targets
over the same list; each file is replaced by a rename. What this process has written is remembered, so a list that was
taken away or put back to an older one is whole again with the next change. Room is kept aside beside each file: on a
full disk nothing is signed any more, and what is revoked is written still (traps 12).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from broker.engines.ssh.ledger import Ledger
from broker.errors import NotYet, TargetDown
from ca.errors import Malformed
from ca.runtime.clock import Clock
from ca.runtime.reserve import Reserve

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds a lock that somebody else holds is waited for."""

_LONGEST = 64 * 1024 * 1024
_ASIDE = 1024 * 1024
"""Bytes kept aside: a list of some ten thousand names."""


class Keeper:
    """The lists of one target; all of them say the same."""

    def __init__(self, paths: Sequence[Path], clock: Clock) -> None:
        self.paths, self._clock = tuple(paths), clock
        self._turn = asyncio.Lock()
        self._known = Ledger()

    async def change(self, work: Callable[[Ledger], T], *, ending: bool = False) -> T:
        """Do `work` on what the lists say and write that; what `work` raises changes nothing.

        An `ending` may use the room that is kept aside; anything else is refused once it is not there.

        Raises:
            TargetDown: a list can't be read or written, or is not ours.
            NotYet: somebody else holds on to it.
            Conflict: the lists carry claims of different installations.
        """
        async with self._turn, self._locked():
            ledger = await asyncio.to_thread(self._read)
            ledger.add(self._known)
            answer = work(ledger)
            now = self._clock.now()
            ledger.drop_old(now)
            ledger.version += 1
            await asyncio.to_thread(self._write, ledger.encode(now), ending=ending)
            self._known = ledger
            return answer

    async def look(self) -> Ledger:
        """What the lists say. Raises as `change` does."""
        ledger = await asyncio.to_thread(self._read)
        ledger.add(self._known)
        return ledger

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        path, started = _beside(self.paths[0], ".lock"), self._clock.boot()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _trouble(path, error) from None
        try:
            while not _taken(descriptor):
                if self._clock.boot() - started >= _PATIENCE:
                    raise NotYet(f"somebody else holds on to the revocation list `{self.paths[0]}`")
                await self._clock.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Ledger:
        ledger = Ledger()
        for path in self.paths:
            try:
                ledger.add(Ledger.decode(_content(path)))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _trouble(path, error) from None
            except Malformed as error:
                raise TargetDown(f"`{path}`: {error}") from None
        return ledger

    def _write(self, content: bytes, *, ending: bool) -> None:
        for path in self.paths:
            reserve = Reserve(_beside(path, ".reserve"), _ASIDE)
            try:
                if not reserve.make() and not ending:
                    raise TargetDown(f"the disk of the revocation list `{path}` is full, nothing is signed any more")
                _replace(path, content, reserve if ending else None)
                same = _content(path) == content
            except OSError as error:
                raise _trouble(path, error) from None
            if not same:
                raise TargetDown(f"the revocation list `{path}` does not say what was written")


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(path: Path) -> bytes:
    """What a host reads there. A link is refused: a rename would replace it, and hosts go on reading what it led to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_LONGEST)


def _replace(path: Path, content: bytes, reserve: Reserve | None) -> None:
    """A host reads the old list or the new one; the new one is on the disk when this returns. Anybody may read it."""
    try:
        aside = _written(_beside(path, ".new"), content)
    except OSError:
        if reserve is None:
            raise
        reserve.drop()
        aside = _written(_beside(path, ".new"), content)
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written(aside: Path, content: bytes) -> Path:
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        aside.unlink(missing_ok=True)  # half of it would hold the room that is missing
        raise
    return aside


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _trouble(path: Path, error: OSError) -> TargetDown:
    return TargetDown(f"the revocation list `{path}` can't be kept: {(error.strerror or 'unknown reason').lower()}")
