"""Whether a store has the past it had when it was last left, as far as that shows from outside of it (traps 20).

On PostgreSQL the server says it: its system identifier, timeline and database change with a restore and a promotion.

A file says nothing of the kind, so a *marker* lies beside it: a name that is drawn anew at each start and also written
into the store, the inode of the file, and how far the store had come. An older copy put in the file's place has another
name, or has not come as far; a copy in another folder has another inode, or no marker. What can't be seen: a snapshot
of the whole disk, and a copy as new as the last word in the marker. The name is written here before it is written
there, and the store is durable before how far it came is written here: so a crash is never taken for a restore.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ca.runtime import log
from ca.runtime.database import Database

_LARGEST = 64 * 1024
_NEVER = 2**62
_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a store is compared with.

    `names` are those its past may have in it, `next` the one it is to have from now on, `reached` how far it had come
    for certain: a number that only grows.
    """

    names: frozenset[str]
    next: str
    reached: int = 0


@runtime_checkable
class Historic(Protocol):
    """A store whose server tells its past."""

    @property
    def incarnation(self) -> object:
        """Its name is what `str` makes of it."""


class Chronicle(Protocol):
    """Where the past of one store is known from."""

    past: Past

    def note(self, reached: int) -> None:
        """The store is durable up to `reached`, under its present name."""


def chronicle(url: str, database: Database, *, restored: bool = False) -> Chronicle:
    """That of the store that was opened at `url`. One that somebody says was `restored` has never come far enough."""
    found: Chronicle
    if isinstance(database, Historic):
        name = str(database.incarnation)
        found = _Told(Past(names=frozenset({name}), next=name))
    else:
        found = Marker(Path(url.removeprefix("sqlite:")))
    if restored:
        found.past = replace(found.past, reached=_NEVER)
    return found


@dataclass(slots=True)
class _Told:
    """By the server, which needs nothing from us."""

    past: Past

    def note(self, reached: int) -> None:
        """Nothing to write."""


@dataclass(slots=True)
class Marker:
    """The file beside the store at `path`; made by whoever holds the store, so by one process."""

    path: Path
    past: Past = field(init=False)
    _said: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        names, reached = self._read()
        following = secrets.token_hex(16)
        if not self._write([*names, following], reached) and names:
            following = names[-1]  # no room for another name, so it keeps the one it has
        self.past = Past(names=frozenset(names), next=following, reached=reached)

    @property
    def file(self) -> Path:
        """Beside the store."""
        return self.path.with_name(self.path.name + ".past")

    def note(self, reached: int) -> None:
        """Write how far the store has come, when that is news; a full disk costs no more than the note."""
        if reached != self._said and self._write([self.past.next], reached):
            self._said = reached

    def _read(self) -> tuple[list[str], int]:
        """No name, when there is nothing to believe."""
        try:
            with self.file.open("rb") as file:
                found: Any = json.loads(file.read(_LARGEST))
            names, reached, inode = [str(name) for name in found["names"]], int(found["reached"]), int(found["inode"])
        except FileNotFoundError:
            return [], 0
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("the marker beside the store can't be read", path=self.file, error=error)
            return [], 0
        return (names if inode == self.path.stat().st_ino else []), reached

    def _write(self, names: list[str], reached: int) -> bool:
        draft = self.file.with_name(self.file.name + ".new")
        content = json.dumps({"names": names, "reached": reached, "inode": self.path.stat().st_ino})
        try:
            descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            draft.replace(self.file)
            _sync(self.file.parent)  # else the power may go, and the store has a name that is not here
        except OSError as error:
            _log.warning("the marker beside the store can't be written", path=self.file, error=error)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            return False
        return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
