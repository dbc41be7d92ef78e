"""From a peer to what can be said about it: all sources at once, and it must be the same process afterwards.

Looking takes time, and a process may become another program meanwhile: start time, user and executable are compared
before and after, and the pidfd has the last word. Whoever changes while it is looked at is refused; it may call again.
What the kernel doesn't show (a parent that became another program *before* we looked, while its child speaks on the
inherited socket) is not seen here either: the boundary is the user, and `Strength` says how much of one there is.

A source that can't say what a process is leaves the others standing: fewer selectors never give more. One that can't
*ask* (a kubelet that hangs) refuses the process for now: on half of the facts nobody is given half of an identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache

from attestor.instance import Binding, Strength
from attestor.methods.workload.cgroup import Cgroup, Entry, parse, sees_the_machine
from attestor.methods.workload.container import locate
from attestor.methods.workload.proc import CallerGone, ProcessFolder, process_folder
from attestor.methods.workload.protocol import Boundary, CantSay, Subject, WorkloadSource
from attestor.methods.workload.systemd import unit_of
from attestor.node_agent.peer import Findings, Peer
from attestor.selector import Selector
from ca.errors import Unavailable

Count = Callable[[str, str], object]
"""Told the name of a source and what came of asking it: `said`, `nothing`, `cant-say`, `unavailable`."""

_DEEPEST = 64


class Attestor:
    """Looks at peers.

    `shared_uids` are the users under which the node agent itself and its neighbours run: an agent under one of them
    can read their memory and they its own, so its attestation says little (traps 9). `parents` are names that may stand
    above the cgroups of pods.
    """

    def __init__(
        self,
        sources: Sequence[WorkloadSource],
        *,
        shared_uids: Collection[int] = (),
        parents: Collection[str] = (),
        count: Count = lambda _source, _outcome: None,
    ) -> None:
        self._sources = tuple(sources)
        self._boundaries = [source if isinstance(source, Boundary) else None for source in self._sources]
        self._parents = frozenset(parents)
        self._count = count
        self._shared = frozenset({os.geteuid(), *shared_uids})

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of those that are asked."""
        return tuple(source.name for source in self._sources)

    async def attest(self, peer: Peer, *, for_people: bool = False) -> Findings:
        """Look at `peer` with every source.

        `for_people` leaves out what can't be asked at the moment and says so, instead of refusing.

        Raises:
            CallerGone: it ended, or became another program or another user's, before or while it was looked at.
            Unavailable: a source can't ask whom it must.
        """
        with ExitStack() as stack:
            folder = stack.enter_context(process_folder(peer.pid))
            peer.check()  # alive after the folder was opened: the folder is this process's
            subject = Subject(pid=peer.pid, uid=peer.uid, gid=peer.gid, start_time=peer.name.start_time, folder=folder)
            before = _look(folder)
            if before[:3] != (peer.name.start_time, peer.uid, peer.gid):
                raise CallerGone(f"the process {peer.pid} is no longer the one that opened this connection")
            lineage = tuple(_parents(folder))
            said = await self._asked(subject, for_people)
            after = _look(folder)
            if after[:-1] != before[:-1]:
                raise CallerGone(f"the process {peer.pid} became another program while it was attested")
            if after != before:
                raise CallerGone(f"the process {peer.pid} was moved to another cgroup while it was attested")
        peer.check()
        cgroups = before[-1]
        assert isinstance(cgroups, bytes)
        found = [one if isinstance(one, frozenset) else frozenset[Selector]() for one in said]
        unsaid = [(source.name, one) for source, one in zip(self._sources, said, strict=True) if isinstance(one, str)]
        return Findings(
            selectors=frozenset().union(*found),
            strength=self._strength(peer, found),
            lineage=lineage,
            look=before,
            within=_within(cgroups, self._parents),
            unsaid=tuple(unsaid),
        )

    @staticmethod
    def look_again(pid: int, findings: Findings) -> None:
        """What is cheap to see of a process that is held must be what it was when it was attested (WL-18).

        Raises:
            CallerGone: it became another program or another user's, or was moved to another cgroup.
        """
        with process_folder(pid) as folder:
            if _look(folder) != findings.look:
                raise CallerGone(f"the process {pid} is no longer the one that opened this connection")

    async def _asked(self, subject: Subject, for_people: bool) -> Sequence[frozenset[Selector] | str]:  # noqa: FBT001
        """All sources at once; one alone without a task of its own."""
        asked = [self._ask(source, subject, for_people) for source in self._sources]
        return await asyncio.gather(*asked) if len(asked) > 1 else [await one for one in asked]

    async def _ask(self, source: WorkloadSource, subject: Subject, for_people: bool) -> frozenset[Selector] | str:  # noqa: FBT001
        """What one source says, or why it says nothing."""
        try:
            found = await source.selectors(subject)
        except CantSay as problem:
            self._count(source.name, "cant-say")
            return str(problem)
        except Unavailable as problem:
            self._count(source.name, "unavailable")
            if not for_people:
                raise
            return str(problem)
        self._count(source.name, "said" if found else "nothing")
        return found

    def _strength(self, peer: Peer, found: Sequence[frozenset[Selector]]) -> Strength:
        """The user's worth, or that of a better boundary around it."""
        if not peer.certain:
            return Strength.WEAK_PEER
        by_user = Strength.SHARED_UID if peer.uid in self._shared else Strength.OWN_UID
        others = [
            boundary.strength(one)
            for boundary, one in zip(self._boundaries, found, strict=True)
            if boundary is not None
        ]
        return max([by_user, *(one for one in others if one is not None)], key=lambda one: one.rank)


@lru_cache(1024)
def _within(cgroups: bytes, parents: frozenset[str]) -> tuple[tuple[Binding, Cgroup], ...]:
    """The cgroups that may be an instance in its place; none where they contradict each other."""
    return tuple(_enclosing(parse(cgroups), parents))


def _enclosing(cgroups: Sequence[Entry], parents: Collection[str]) -> Iterator[tuple[Binding, Cgroup]]:
    with contextlib.suppress(CantSay):
        located = locate(cgroups, parents=parents)
        if located is not None:
            yield Binding.CONTAINER, located.container_cgroup
        if located is not None and located.pod_cgroup is not None:
            yield Binding.POD, located.pod_cgroup
    with contextlib.suppress(CantSay):
        unit = unit_of(cgroups) if sees_the_machine() else None
        if unit is not None and unit.name:
            yield Binding.UNIT, unit.cgroup


def _look(folder: ProcessFolder) -> tuple[object, ...]:
    """What must not change while we look: when it began, whose it is, what it runs; last, its cgroups."""
    status = folder.status()
    runs = folder.executable()
    program = None if runs is None else (runs.st_dev, runs.st_ino)
    uid, gid = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
    return (folder.start_time(), uid, gid, program, status.get("Groups"), folder.read("cgroup"))


def _parents(folder: ProcessFolder) -> Iterator[tuple[int, int]]:
    """Who started it, and who started that one; a daemon's chain ends at init."""
    with contextlib.suppress(CallerGone, PermissionError):
        parent = folder.parent()
        for _ in range(_DEEPEST):
            if parent <= 0:
                return
            with process_folder(parent) as above:
                yield parent, above.start_time()
                parent = above.parent()
