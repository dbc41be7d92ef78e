"""All that the node agent holds: an instance for each attested process, from its first leaf to its end.

One process, one pidfd, however many connections it opens; one instance for it, or for the container, pod or unit its
identities are bound to. An instance is journalled before anything is handed over and reported in the live set from
then on, until its process or cgroup is gone; there is no other way out of the set.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attestor.instance import Binding, new_id
from attestor.methods.workload.cgroup import Cgroup
from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.cgroups import CgroupName
from attestor.node_agent.enclosures import Enclosure, Enclosures
from attestor.node_agent.held import Held
from attestor.node_agent.journal import Journal, Name
from attestor.node_agent.peer import Findings, Peer, ProcessName, reopen
from attestor.selector import Selectors, parse_all
from attestor.wire.node import LiveSet
from ca.errors import Exhausted
from ca.runtime import log

MOST_INHERITED = 64
"""Selectors a process has by its parents."""

_CGROUPS = (Binding.CONTAINER, Binding.UNIT, Binding.POD)
_NARROWEST_FIRST = (Binding.PROCESS, *_CGROUPS)

_log = log.get(__name__)


class Holdings:
    """All that is held. `ended` is called when a process was seen to end, `counter` rises with the live set."""

    def __init__(self, journal: Journal, *, most: int, ended: Callable[[], object]) -> None:
        self._journal = journal
        self._most = most
        self._ended = ended
        self._held: dict[ProcessName, Held] = {}
        self._by_pid: dict[int, Held] = {}
        self._enclosures = Enclosures(room=self._has_room, ended=self._on_empty)
        self._counter = 0

    def restore(self) -> None:
        """Take up again what the journal names and still runs; the rest is reported as gone by its absence."""
        for instance, name in self._journal.live.items():
            if not self._restored(instance, name):
                self._journal.end(instance)

    def _restored(self, instance: str, name: Name) -> bool:
        if isinstance(name, CgroupName):
            enclosure = self._enclosures.restore(instance, name)
            if enclosure is not None:
                enclosure.counter = 1
            return enclosure is not None
        pidfd = reopen(name)
        if pidfd is not None:
            self._insert(Held(own=instance, name=name, pidfd=pidfd, own_counter=1))
        return pidfd is not None

    def count_from(self, counter: int) -> None:
        """Go on above the newest live set the server has applied."""
        if self._counter <= counter:
            self._counter = counter + 1

    @contextmanager
    def holding(self, peer: Peer) -> Iterator[Held]:
        """What is held for the process of `peer`, for as long as it is used; its pidfd is ours from now on.

        Who was given nothing is forgotten afterwards: it keeps no descriptor of ours busy.

        Raises:
            Exhausted: so many processes are held, in all or of this user, that one more would leave none for the rest.
        """
        held = self._of(peer)
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            if held.counter == 0 and held.users == 0 and held.pidfd >= 0:
                self._remove(held)

    async def settle(self, held: Held) -> None:
        """Journal `held` and put it into the live set, once.

        Raises:
            CallerGone: it ended meanwhile.
            Unavailable: the journal can't be written; then nothing may be handed over.
        """
        if held.enclosure is not None:
            await self._settle_enclosure(held.enclosure)
        elif held.own_counter == 0:
            await self._journal.begin(held.own, held.name)
            if held.pidfd < 0:  # it ended meanwhile and was forgotten; so must the line be
                self._journal.end(held.own)
                held.check()
            self._counter += 1
            held.own_counter = self._counter

    async def _settle_enclosure(self, enclosure: Enclosure) -> None:
        async with enclosure.settling:
            if enclosure.counter:
                return
            await self._journal.begin(enclosure.instance, enclosure.name)
            if enclosure.ended:
                self._journal.end(enclosure.instance)
                raise CallerGone("the container, pod or unit of the calling process has ended")
            self._counter += 1
            enclosure.counter = self._counter

    def bind(self, held: Held) -> bool:
        """Let the instance of `held` be what its identities are bound to; whether it is another one now.

        The narrowest binding counts, so that no identity outlives what it is bound to. A cgroup that can't be watched
        from here is no instance: then the process is, which ends no later.
        """
        bound = {one.bind for one in held.identities if one.ends_at is None}
        wanted = next((one for one in _NARROWEST_FIRST if one in bound), None)
        cgroup = dict(held.findings.within).get(wanted) if held.findings and wanted else None
        enclosure = self._enclosures.of(cgroup) if cgroup else None
        if wanted in _CGROUPS and enclosure is None:
            _log.warning("bound to the process: its cgroup can't be watched", pid=held.name.pid, bind=wanted)
        if enclosure is held.enclosure:
            return False
        held.strip()
        held.enclosure, held.pending = enclosure, True
        return True

    def look(self) -> None:
        """What no kernel tells of: cgroups of version 1 that nobody is left in."""
        self._enclosures.tick()

    def live(self) -> LiveSet:
        """The complete live set."""
        processes = (held.own for held in self._held.values() if held.own_counter)
        enclosures = (one.instance for one in self._enclosures if one.counter)
        return LiveSet(counter=self._counter, instances=frozenset([*processes, *enclosures]))

    def bar(self, instances: frozenset[str]) -> None:
        """The server gives these nothing more: whoever waits for them is told."""
        if not instances:
            return
        served = [held for held in self if held.instance in instances and not held.barred]
        for held in self:
            held.own_barred = held.own_barred or held.own in instances
        for enclosure in self._enclosures:
            enclosure.barred = enclosure.barred or enclosure.instance in instances
        for held in served:
            held.strip()
            held.change.announce()

    def drop_all(self) -> None:
        """This node was sent away and its instances ended: nobody keeps anything, and who calls again begins anew."""
        for enclosure in self._enclosures:
            enclosure.barred = True
            self._journal.end(enclosure.instance)
            self._enclosures.remove(enclosure)
        for held in self:
            held.own_barred = True
            self._journal.end(held.own)
            self._remove(held)
            held.change.announce()

    def announce(self) -> None:
        """Something that concerns everybody changed."""
        for held in self:
            held.change.announce()

    def forget_tokens(self) -> None:
        """The keys that sign changed: no token is given a second time."""
        for held in self:
            held.tokens.clear()

    def lineage(self, findings: Findings) -> tuple[str, ...]:
        """The instances among the parents of a process, the nearest first."""
        return tuple(dict.fromkeys(one.instance for one in self._elders(findings)))

    def inherited(self, findings: Findings) -> Selectors:
        """What a process is by the identities its living parents hold: `ancestor:id:…`, `parent:id:…` of the nearest.

        By what was attested and not by what a parent looks like: a path costs its parent one `exec`, an identity must
        have been given to that very process (traps 9).
        """
        found: list[str] = []
        for one in self._elders(findings):
            nearest = (one.name.pid, one.name.start_time) == findings.lineage[0]
            for identity in () if one.barred else one.identities:
                found += [f"ancestor:id:{identity.id}", *([f"parent:id:{identity.id}"] if nearest else [])]
        return parse_all(found[:MOST_INHERITED])

    def _elders(self, findings: Findings) -> list[Held]:
        """Its parents that are another instance than it may be: in its own enclosure nobody descends."""
        own = {id(self._enclosures.known(cgroup)) for _, cgroup in findings.within}
        return [one for one in self.parents(findings) if one.enclosure is None or id(one.enclosure) not in own]

    def parents(self, findings: Findings) -> list[Held]:
        """Who is held among the parents of a process, the nearest first."""
        found = [(self._by_pid.get(pid), start) for pid, start in findings.lineage]
        return [one for one, start in found if one is not None and one.name.start_time == start and one.counter]

    def enclosure(self, cgroup: Cgroup) -> Enclosure | None:
        """The container, pod or unit held at `cgroup`."""
        return self._enclosures.known(cgroup)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Let go of every process; the journal still names them."""
        self._enclosures.close()
        for held in self:
            self._let_go(held)
            held.change.announce()

    def _of(self, peer: Peer) -> Held:
        known = self._held.get(peer.name)
        if known is not None:
            known.uid = peer.uid
            peer.close()
            return known
        if not self._has_room():
            raise Exhausted(f"this node agent holds identities for {self._most} processes and takes no more")
        if sum(held.uid == peer.uid for held in self._held.values()) >= max(1, self._most // 2):
            raise Exhausted(f"the user {peer.uid} has half of the {self._most} processes held here and gets no more")
        held = Held(own=new_id(), name=peer.name, uid=peer.uid, pidfd=peer.release())
        self._insert(held)
        return held

    def _has_room(self) -> bool:
        return len(self._held) + len(self._enclosures) < self._most

    def _insert(self, held: Held) -> None:
        self._held[held.name] = self._by_pid[held.name.pid] = held
        asyncio.get_running_loop().add_reader(held.pidfd, self._on_exit, held)

    def _on_exit(self, held: Held) -> None:
        self._remove(held)
        held.change.announce()
        if held.own_counter:
            self._has_ended(held.own)

    def _on_empty(self, enclosure: Enclosure) -> None:
        for held in self:
            if held.enclosure is enclosure:
                held.leave()
        if enclosure.counter:
            self._has_ended(enclosure.instance)

    def _has_ended(self, instance: str) -> None:
        self._counter += 1
        self._journal.end(instance)
        self._ended()

    def _remove(self, held: Held) -> None:
        del self._held[held.name]
        if self._by_pid.get(held.name.pid) is held:
            del self._by_pid[held.name.pid]
        self._let_go(held)

    def _let_go(self, held: Held) -> None:
        asyncio.get_running_loop().remove_reader(held.pidfd)
        os.close(held.pidfd)
        held.pidfd = -1
        held.strip()
