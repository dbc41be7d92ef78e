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
from attestor.node_agent.cgroups import CgroupName, Watch, open_cgroup, reopen_cgroup, resolve, watch


@dataclass(slots=True, kw_only=True, eq=False)
class Enclosure:
    """One cgroup that is an instance; `counter` and `barred` as of a process that is held."""

    instance: str
    name: CgroupName
    watch: Watch = field(repr=False)
    counter: int = 0
    barred: bool = False
    ended: bool = False
    settling: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def is_alive(self) -> bool:
        """Whether anybody is left in it."""
        return not self.ended and self.watch.is_populated()


class Enclosures:
    """All of them. `ended` is told of each that nobody is left in; each costs a descriptor, if there is `room`."""

    def __init__(self, *, room: Callable[[], bool], ended: Callable[[Enclosure], object]) -> None:
        self._room, self._ended = room, ended
        self._known: dict[CgroupName, Enclosure] = {}
        self._newest: dict[Cgroup, Enclosure] = {}
        self._poll: select.epoll | None = None

    def restore(self, instance: str, name: CgroupName) -> Enclosure | None:
        """Take up again what was written down, or None when it is gone."""
        folder = reopen_cgroup(name)
        if folder is None:
            return None
        found = self._insert(Enclosure(instance=instance, name=name, watch=watch(folder)))
        if not found.is_alive():
            self.remove(found)
            return None
        return found

    def of(self, cgroup: Cgroup) -> Enclosure | None:
        """That of `cgroup`, made when there is none; None when it can't be watched from here, or there is no room."""
        opened = open_cgroup(cgroup)
        if opened is None:
            return None
        name, folder = opened
        known = self._known.get(name)
        if known is not None or not self._room():
            os.close(folder)
            return known
        return self._insert(Enclosure(instance=new_id(), name=name, watch=watch(folder)))

    def known(self, cgroup: Cgroup) -> Enclosure | None:
        """That of `cgroup`, if there is one."""
        found = resolve(cgroup)
        return None if found is None else self._newest.get(found)

    def tick(self) -> None:
        """Look at all: what version 1 does not tell, and what was missed."""
        for one in self:
            if not one.is_alive():
                self._end(one)

    def remove(self, one: Enclosure) -> None:
        """Let go of it."""
        del self._known[one.name]
        if self._newest.get(one.name.cgroup) is one:
            del self._newest[one.name.cgroup]
        self._let_go(one)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Enclosure]:
        return iter(tuple(self._known.values()))

    def close(self) -> None:
        """Let go of all."""
        for one in self:
            self._let_go(one)
        self._known.clear()
        self._newest.clear()
        if self._poll is not None:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _insert(self, one: Enclosure) -> Enclosure:
        self._known[one.name] = self._newest[one.name.cgroup] = one
        if one.watch.tells:
            self._changes().register(one.watch.descriptor, select.EPOLLPRI)
            one.watch.is_populated()  # what changes after this look is told
        return one

    def _changes(self) -> select.epoll:
        """One for all: the loop can't wait for such a change, but for a poll that does."""
        if self._poll is None:
            self._poll = select.epoll()
            asyncio.get_running_loop().add_reader(self._poll.fileno(), self._stirred)
        return self._poll

    def _stirred(self) -> None:
        assert self._poll is not None
        stirred = {descriptor for descriptor, _ in self._poll.poll(0)}
        for one in self:
            if one.watch.descriptor in stirred and not one.is_alive():
                self._end(one)

    def _end(self, one: Enclosure) -> None:
        self.remove(one)
        self._ended(one)

    def _let_go(self, one: Enclosure) -> None:
        if one.watch.tells and self._poll is not None:
            self._poll.unregister(one.watch.descriptor)
        one.watch.close()
        one.ended = True
