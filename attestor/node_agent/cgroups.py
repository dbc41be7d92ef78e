"""Cgroups as folders of this machine: which one it is, unmistakably, and whether anybody is left in it.

A cgroup is found by our *own* mounts, by the path the kernel gave for a process. Its name is used again after it was
removed, its inode is not; so both are kept, and an open folder never becomes another cgroup's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attestor.methods.workload.cgroup import Cgroup
from attestor.node_agent.peer import boot_id

_EVENTS, _MEMBERS = "cgroup.events", "cgroup.procs"


@dataclass(frozen=True, slots=True)
class CgroupName:
    """A cgroup on this machine, unmistakably: a path is used again, an inode of the same boot is not."""

    controllers: tuple[str, ...]
    path: str
    inode: int
    boot_id: str

    @property
    def cgroup(self) -> Cgroup:
        """Where it is."""
        return Cgroup(self.controllers, self.path)


def open_cgroup(cgroup: Cgroup) -> tuple[CgroupName, int] | None:
    """Its name and a descriptor of its folder, or None when it can't be seen from here or is no more."""
    mounted = next((place for names, place in _mounts() if _is_of(cgroup, names)), None)
    segments = [one for one in cgroup.path.split("/") if one]
    if mounted is None or not segments or ".." in segments:
        return None
    try:
        folder = os.open(mounted.joinpath(*segments), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    return CgroupName(cgroup.controllers, cgroup.path, os.fstat(folder).st_ino, boot_id()), folder


def reopen_cgroup(name: CgroupName) -> int | None:
    """A descriptor of the cgroup that had this name when it was written down, or None when that one is gone."""
    if name.boot_id != boot_id():
        return None
    found = open_cgroup(name.cgroup)
    if found is None:
        return None
    again, folder = found
    if again != name:
        os.close(folder)
        return None
    return folder


@dataclass(frozen=True, slots=True)
class Watch:
    """An open cgroup, by one descriptor; `tells` whether that can be polled for changes: version 2."""

    descriptor: int
    tells: bool

    def is_populated(self) -> bool:
        """Whether a process is left in it or below; a removed one has none."""
        try:
            if self.tells:
                return b"populated 1" in os.pread(self.descriptor, 4096, 0).splitlines()
            return any(_members(self.descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def watch(folder: int) -> Watch:
    """Watch the cgroup whose open folder this is; the descriptor is the watch's from now on."""
    try:
        events = os.open(_EVENTS, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:  # version 1 has none
        return Watch(folder, tells=False)
    os.close(folder)
    return Watch(events, tells=True)


def _members(folder: int) -> Iterator[bytes]:
    for _, _, _, inner in os.fwalk(".", dir_fd=folder):
        with open(os.open(_MEMBERS, os.O_RDONLY | os.O_CLOEXEC, dir_fd=inner), "rb") as file:  # noqa: PTH123
            yield from file


def _is_of(cgroup: Cgroup, names: frozenset[str]) -> bool:
    return names == frozenset(cgroup.controllers) if not cgroup.controllers else names >= set(cgroup.controllers)


@cache
def _mounts() -> tuple[tuple[frozenset[str], Path], ...]:
    """Where we see whole hierarchies: the names of their controllers, none for version 2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split()[0], after.split()[-1]
        root, place = before.split()[3:5]
        if root == "/" and kind in {"cgroup", "cgroup2"}:
            found.append((frozenset(options.split(",")) if kind == "cgroup" else frozenset[str](), Path(place)))
    return tuple(found)
