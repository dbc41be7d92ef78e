"""The keys of tasks that are bound to no process: one private file each, for the next command that speaks for one.

    <runtime folder>/tasks/<id>.key        mode 0600, a P-256 key as a JWK

Whoever reads such a file and has the opener's identity speaks for the task until it ends, so it lies where only this
user may look, and in memory where the runtime folder does.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ca.errors import Denied, Malformed
from ca.runtime.places import Places, make


class KeyFile:
    """A key that is kept before its task exists, so that no task is opened whose key is lost."""

    def __init__(self, places: Places, key: ECKey) -> None:
        """Write it. Raises Denied, Conflict: the folder can't be had for ourselves."""
        self._folder = _folder(places)
        self._draft = self._folder / f".{secrets.token_hex(8)}"
        content = json.dumps(key.as_dict(private=True)).encode()
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)

    def keep(self, task: str) -> Path:
        """It became the key of `task`."""
        path = self._folder / f"{task}.key"
        self._draft.rename(path)
        return path

    def drop(self) -> None:
        """No task came of it."""
        self._draft.unlink(missing_ok=True)


def find(places: Places, task: str) -> ECKey | None:
    """The key of `task`, if it was opened from here.

    Raises:
        Denied: others may read it, so it proves nothing.
        Malformed: it is no key.
    """
    path = places.runtime / "tasks" / f"{task}.key"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Denied(f"others may read `{path}`: expected a file of our own with mode 0600")
        content = file.read(4096)
    try:
        return ECKey.import_key(json.loads(content))
    except (JoseError, ValueError, TypeError, KeyError):
        raise Malformed(f"`{path}` holds no key of a task") from None


def forget(places: Places, task: str) -> None:
    """The task is over, and its key good for nothing."""
    (places.runtime / "tasks" / f"{task}.key").unlink(missing_ok=True)


def _folder(places: Places) -> Path:
    make(places.runtime, mode=0o711)
    return make(places.runtime / "tasks")
