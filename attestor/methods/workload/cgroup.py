"""The cgroups of a process, as the kernel writes them in `/proc/<pid>/cgroup`.

    0::/system.slice/agent.service                  version 2
    9:name=systemd:/system.slice/agent.service      version 1, one line per hierarchy

Paths are seen from *our* cgroup namespace: one outside of it begins with `/..`. What the process itself has mounted
changes nothing of that file, which is why it is believed and `/proc/<pid>/mountinfo` never is: whoever has a mount
namespace of its own, and any user may make one, lays another pod's cgroup over its own there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from attestor.methods.workload.proc import ProcessFolder
from ca.errors import Malformed

SYSTEMD = "name=systemd"
MOST_HIERARCHIES = 64
_FIRST_NAMESPACE = 0xEFFFFFFB  # the kernel's own number for the cgroup namespace of the machine (PROC_CGROUP_INIT_INO)
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a hierarchy by its controllers (none: version 2), and the path of the process's cgroup in it."""

    controllers: tuple[str, ...]
    path: str

    @property
    def unified(self) -> bool:
        """Whether it is version 2."""
        return not self.controllers

    @property
    def segments(self) -> tuple[str, ...]:
        """The names on the way to it; none for the root."""
        return tuple(name for name in self.path.split("/") if name)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One cgroup: a hierarchy by its controllers, and a path in it."""

    controllers: tuple[str, ...]
    path: str


def cgroups_of(folder: ProcessFolder) -> tuple[Entry, ...]:
    """The cgroups of a process. Raises CallerGone, Malformed."""
    return parse(folder.read("cgroup"))


def parse(text: bytes) -> tuple[Entry, ...]:
    """Read the file; a cgroup that was removed is none.

    Raises:
        Malformed: a line isn't what the kernel writes, or there are more than any machine has.
    """
    # Only a line feed ends a line: it is the one character a cgroup's name can't have, and Python knows eight more.
    lines = text.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    if len(lines) > MOST_HIERARCHIES:
        raise Malformed(f"a process can't be in more than {MOST_HIERARCHIES} hierarchies of cgroups")
    return tuple(entry for entry in map(_entry, filter(None, lines)) if not entry.path.endswith(_DELETED))


def preferred(entries: Iterable[Entry]) -> list[Entry]:
    """Version 2 first, then systemd's own hierarchy: the ones that see a whole tree and are told of its end."""
    return sorted(entries, key=lambda one: (not one.unified, SYSTEMD not in one.controllers, one.controllers))


def sees_the_machine() -> bool:
    """Whether our cgroup namespace is the machine's own, so that a path means what the host means by it."""
    try:
        return os.stat("/proc/self/ns/cgroup").st_ino == _FIRST_NAMESPACE  # noqa: PTH116 - the namespace, not a file
    except OSError:
        return False


def _entry(line: str) -> Entry:
    parts = line.split(":", 2)
    if len(parts) != 3 or not parts[0].isdecimal() or not parts[2].startswith("/"):
        raise Malformed("a line of the cgroups of a process is not one the kernel writes")
    return Entry(tuple(name for name in parts[1].split(",") if name), parts[2])
