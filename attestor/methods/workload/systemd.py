r"""Which unit of systemd a process belongs to, by the path of its cgroup.

    systemd:unit:agent.service  systemd:slice:system.slice  systemd:user-unit:1000:agent.service

The machine's own manager keeps its services below `system.slice`, where nobody but root makes cgroups; the *first* name
below the slices is the unit, and what stands under that is the service's own affair. Each user has a manager too,
below `user@<uid>.service`, and may call its units as it likes: those are said apart, with the user in the value, and
never become a `unit`. Another top-level slice belongs to whoever made it: its name is said, no unit.

Names are as systemd writes them: `a\x2db.service` stays escaped; only the `_` that systemd puts before names that
would collide with the kernel's own files is taken away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from attestor.methods.workload.cgroup import SYSTEMD, Cgroup, Entry, cgroups_of, sees_the_machine
from attestor.methods.workload.protocol import CantSay, Subject
from attestor.selector import Selector
from ca.errors import Malformed

_KIND = r"(?:service|scope|socket|mount|swap|timer|path|target|device|automount)"
_UNIT = re.compile(rf"[A-Za-z0-9:_.\\@-]{{1,255}}\.{_KIND}")
_SLICE = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}\.slice")
_MANAGER = re.compile(r"user@(\d{1,10})\.service")
_SYSTEM, _USER = "system.slice", "user.slice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Where systemd keeps a process: the slices from the outermost in, and the unit; `user` of a user's own manager."""

    slices: tuple[str, ...]
    name: str
    user: int | None
    cgroup: Cgroup


class SystemdSource:
    """Selectors of the type `systemd`. `whole` says whether paths are seen as the host sees them."""

    name = "systemd"

    def __init__(self, *, whole: Callable[[], bool] = sees_the_machine) -> None:
        self._whole = whole

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """Look at `subject`. Raises CallerGone, CantSay."""
        if not self._whole():
            raise CantSay("the node agent is in a cgroup namespace of its own, where a path may be anybody's")
        unit = unit_of(cgroups_of(subject.folder))
        return frozenset() if unit is None else frozenset(_selectors(unit))


def unit_of(entries: Sequence[Entry]) -> Unit | None:
    """The unit of a process. Raises CantSay when version 1 and 2 name different ones."""
    ours = [entry for entry in entries if entry.unified or SYSTEMD in entry.controllers]
    found = [unit for entry in ours if (unit := _in(entry)) is not None]
    if len({(one.slices, one.name, one.user) for one in found}) > 1:
        raise CantSay("its cgroups name more than one unit")
    return next((one for one in found if not one.cgroup.controllers), found[0] if found else None)


def _in(entry: Entry) -> Unit | None:
    names = entry.segments
    depth = _depth(names, 0)
    if depth == 0:
        return None
    slices = names[:depth]
    name = _unescaped(names[depth]) if len(names) > depth else ""
    if slices[0] == _USER:
        user = _MANAGER.fullmatch(name)
        return _users_own(entry, slices, depth, user) if user else _unit(entry, slices, depth, "")
    if slices[0] != _SYSTEM or not _UNIT.fullmatch(name):
        return _unit(entry, slices, depth, "")
    return _unit(entry, slices, depth + 1, name)


def _users_own(entry: Entry, slices: tuple[str, ...], depth: int, manager: re.Match[str]) -> Unit:
    """Below `user@<uid>.service` everything is that user's word, its slices too."""
    names = entry.segments
    below = depth + 1
    while below < len(names) and _SLICE.fullmatch(names[below]):
        below += 1
    name = _unescaped(names[below]) if below < len(names) else ""
    told = name if _UNIT.fullmatch(name) else ""
    return _unit(entry, slices, below + 1 if told else depth, told, int(manager[1]))


def _unit(entry: Entry, slices: tuple[str, ...], length: int, name: str, user: int | None = None) -> Unit:
    cgroup = Cgroup(entry.controllers, "/" + "/".join(entry.segments[:length]))
    return Unit(slices=slices, name=name, user=user, cgroup=cgroup)


def _depth(names: Sequence[str], depth: int) -> int:
    """How many slices lead the way, each within the one before it: `a.slice`, `a-b.slice`."""
    within = ""
    while depth < len(names) and _SLICE.fullmatch(names[depth]) and names[depth].startswith(within):
        within = names[depth].removesuffix(".slice") + "-"
        depth += 1
    return depth


def _unescaped(name: str) -> str:
    return name.removeprefix("_")


def _selectors(unit: Unit) -> Iterator[Selector]:
    values = [f"slice:{one}" for one in unit.slices]
    if unit.name:
        values.append(f"unit:{unit.name}" if unit.user is None else f"user-unit:{unit.user}:{unit.name}")
    for value in values:
        try:
            yield Selector.parse(f"systemd:{value}")
        except Malformed as error:
            raise CantSay("its unit has a name that can't be said") from error
