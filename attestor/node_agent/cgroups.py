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
        """Where it is, below what we see of its hierarchy."""
        return Cgroup(self.controllers, self.path)


def resolve(cgroup: Cgroup) -> Cgroup | None:
    """The same by its path below what we see of its hierarchy, or None when it lies outside of that.

    In a cgroup namespace of our own the kernel names others from where *we* are: `/../../pod…`.
    """
    segments = [one for one in cgroup.path.split("/") if one]
    outside = sum(one == ".." for one in segments)
    seen = next((one for one in _mounts() if _is_of(cgroup, one.names) and len(one.own) >= outside), None)
    if seen is None or not segments[outside:] or ".." in segments[outside:]:
        return None
    above = seen.own[: len(seen.own) - outside]
    return Cgroup(cgroup.controllers, "/" + "/".join([*above, *segments[outside:]]))


def open_cgroup(cgroup: Cgroup) -> tuple[CgroupName, int] | None:
    """Its name and a descriptor of its folder, or None when it can't be seen from here or is no more."""
    found = resolve(cgroup)
    return None if found is None else _opened(found)


def reopen_cgroup(name: CgroupName) -> int | None:
    """A descriptor of the cgroup that had this name when it was written down, or None when that one is gone."""
    if name.boot_id != boot_id():
        return None
    found = _opened(name.cgroup)
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


def _opened(cgroup: Cgroup) -> tuple[CgroupName, int] | None:
    place = next((one.place for one in _mounts() if _is_of(cgroup, one.names)), None)
    if place is None:
        return None
    segments = cgroup.path.strip("/").split("/")
    try:
        folder = os.open(place.joinpath(*segments), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    return CgroupName(cgroup.controllers, cgroup.path, os.fstat(folder).st_ino, boot_id()), folder


def _is_of(cgroup: Cgroup, names: frozenset[str]) -> bool:
    return names == frozenset(cgroup.controllers) if not cgroup.controllers else names >= set(cgroup.controllers)


@dataclass(frozen=True, slots=True)
class _Mount:
    """What we see of a hierarchy: by its controllers, from `place` down; `own` leads from there to our namespace."""

    names: frozenset[str]
    place: Path
    own: tuple[str, ...]


@cache
def _mounts() -> tuple[_Mount, ...]:
    """One for each hierarchy: the one that shows most of it."""
    found: dict[frozenset[str], list[tuple[int, Path]]] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, options = after.split()[0], after.split()[-1]
        root, place = before.split()[3:5]
        above = [one for one in root.split("/") if one]
        if kind in {"cgroup", "cgroup2"} and set(above) <= {".."}:
            names = frozenset(options.split(",")) if kind == "cgroup" else frozenset[str]()
            found.setdefault(names, []).append((len(above), Path(place)))
    return tuple(one for names, places in found.items() if (one := _widest(names, places)) is not None)


def _widest(names: frozenset[str], places: list[tuple[int, Path]]) -> _Mount | None:
    """Our namespace's own root is found from above by its inode: its name is told to nobody inside."""
    depth, place = max(places)
    if depth == 0:
        return _Mount(names, place, ())
    inside = next((each for height, each in places if height == 0), None)
    if inside is None:
        return None
    own = _path_of(place, inside.stat().st_ino, depth)
    return _Mount(names, inside, ()) if own is None else _Mount(names, place, own)


def _path_of(folder: Path, inode: int, depth: int) -> tuple[str, ...] | None:
    """The names that lead `depth` folders down to the one with that inode; those that vanish meanwhile are not it."""
    try:
        if depth == 0:
            return () if folder.stat().st_ino == inode else None
        inner = [one for one in folder.iterdir() if one.is_dir()]
    except OSError:
        return None
    found = ((one.name, _path_of(one, inode, depth - 1)) for one in inner)
    return next(((name, *below) for name, below in found if below is not None), None)
