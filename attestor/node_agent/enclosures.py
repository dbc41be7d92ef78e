"""Containers, pods and units as instances: one for all processes of a cgroup, from the first leaf to its last process.

With `bind: container`, `pod` or `unit` an identity is the cgroup's, not the process's: fork, exec and a daemon's double
fork don't end it, and every process in it carries the same instance. It ends when nobody is left in the cgroup
(`populated 0`), which version 2 tells at once and version 1 at the next look. A process that leaves the cgroup leaves
the instance; a cgroup that is made anew under the same path is another one.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from attestor.instance import new_id
from attestor.methods.workload.cgroup import Cgroup
from attestor.node_agent.cgroups import CgroupName, is_populated, open_cgroup, open_events, reopen_cgroup


@dataclass(slots=True, kw_only=True, eq=False)
class Enclosure:
    """One cgroup that is an instance; `counter` and `barred` as of a process that is held."""

    instance: str
    name: CgroupName
    folder: int = field(repr=False)
    events: int | None = field(repr=False)
    counter: int = 0
    barred: bool = False
    settling: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def is_alive(self) -> bool:
        """Whether anybody is left in it."""
        return self.folder >= 0 and is_populated(self.folder, self.events)


class Enclosures:
    """All of them. `ended` is told of each that nobody is left in."""

    def __init__(self, *, most: int, ended: Callable[[Enclosure], object]) -> None:
        self._most, self._ended = most, ended
        self._known: dict[CgroupName, Enclosure] = {}
        self._poll: select.epoll | None = None

    def restore(self, instance: str, name: CgroupName) -> Enclosure | None:
        """Take up again what was written down, or None when it is gone."""
        folder = reopen_cgroup(name)
        if folder is None:
            return None
        found = self._insert(Enclosure(instance=instance, name=name, folder=folder, events=open_events(folder)))
        if not found.is_alive():
            self.remove(found)
            return None
        return found

    def of(self, cgroup: Cgroup) -> Enclosure | None:
        """That of `cgroup`, made when there is none; None when it can't be watched from here, or there are too many."""
        opened = open_cgroup(cgroup)
        if opened is None:
            return None
        name, folder = opened
        known = self._known.get(name)
        if known is not None or len(self._known) >= self._most:
            os.close(folder)
            return known
        return self._insert(Enclosure(instance=new_id(), name=name, folder=folder, events=open_events(folder)))

    def known(self, cgroup: Cgroup) -> Enclosure | None:
        """That of `cgroup`, if there is one."""
        return next((one for one in self._known.values() if one.name.cgroup == cgroup), None)

    def tick(self) -> None:
        """Look at all: what version 1 does not tell, and what was missed."""
        for one in self:
            if not one.is_alive():
                self._end(one)

    def remove(self, one: Enclosure) -> None:
        """Let go of it."""
        del self._known[one.name]
        self._let_go(one)

    def __iter__(self) -> Iterator[Enclosure]:
        return iter(tuple(self._known.values()))

    def close(self) -> None:
        """Let go of all."""
        for one in self:
            self._let_go(one)
        self._known.clear()
        if self._poll is not None:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _insert(self, one: Enclosure) -> Enclosure:
        self._known[one.name] = one
        if one.events is not None:
            self._watch().register(one.events, select.EPOLLPRI)
            is_populated(one.folder, one.events)  # what changes after this look is told
        return one

    def _watch(self) -> select.epoll:
        """One for all: the loop can't wait for such a change, but for a poll that does."""
        if self._poll is None:
            self._poll = select.epoll()
            asyncio.get_running_loop().add_reader(self._poll.fileno(), self._stirred)
        return self._poll

    def _stirred(self) -> None:
        assert self._poll is not None
        stirred = {descriptor for descriptor, _ in self._poll.poll(0)}
        for one in self:
            if one.events in stirred and not one.is_alive():
                self._end(one)

    def _end(self, one: Enclosure) -> None:
        self.remove(one)
        self._ended(one)

    def _let_go(self, one: Enclosure) -> None:
        if one.events is not None:
            if self._poll is not None:
                self._poll.unregister(one.events)
            os.close(one.events)
        os.close(one.folder)
        one.folder, one.events = -1, None
