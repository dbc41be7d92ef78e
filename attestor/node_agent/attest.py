"""From a peer to what can be said about it: all sources at once, and it must be the same process afterwards.

Looking takes time, and a process may become another program meanwhile: start time, user and executable are compared
before and after, and the pidfd has the last word. Whoever changes while it is looked at is refused; it may call again.
What the kernel doesn't show (a parent that became another program *before* we looked, while its child speaks on the
inherited socket) is not seen here either: the boundary is the user, and `Strength` says how much of one there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack

from attestor.instance import Strength
from attestor.methods.workload.proc import CallerGone, ProcessFolder, process_folder
from attestor.methods.workload.protocol import Subject, WorkloadSource
from attestor.node_agent.peer import Findings, Peer

_DEEPEST = 64


class Attestor:
    """Looks at peers.

    `shared_uids` are the users under which the node agent itself and its neighbours run: an agent under one of them
    can read their memory and they its own, so its attestation says little (traps 9).
    """

    def __init__(self, sources: Sequence[WorkloadSource], *, shared_uids: Collection[int] = ()) -> None:
        self._sources = tuple(sources)
        self._shared = frozenset({os.geteuid(), *shared_uids})

    async def attest(self, peer: Peer) -> Findings:
        """Look at `peer` with every source.

        Raises:
            CallerGone: it ended, or became another program or another user's, before or while it was looked at.
        """
        with ExitStack() as stack:
            folder = stack.enter_context(process_folder(peer.pid))
            peer.check()  # alive after the folder was opened: the folder is this process's
            subject = Subject(pid=peer.pid, uid=peer.uid, gid=peer.gid, start_time=peer.name.start_time, folder=folder)
            before = _look(folder)
            if before[:3] != (peer.name.start_time, peer.uid, peer.gid):
                raise CallerGone(f"the process {peer.pid} is no longer the one that opened this connection")
            lineage = tuple(_parents(folder))
            found = await asyncio.gather(*(source.selectors(subject) for source in self._sources))
            if _look(folder) != before:
                raise CallerGone(f"the process {peer.pid} became another program while it was attested")
        peer.check()
        return Findings(frozenset().union(*found), self._strength(peer), lineage, before)

    @staticmethod
    def look_again(pid: int, findings: Findings) -> None:
        """What is cheap to see of a process that is held must be what it was when it was attested (WL-18).

        Raises:
            CallerGone: it became another program or another user's.
        """
        with process_folder(pid) as folder:
            if _look(folder) != findings.look:
                raise CallerGone(f"the process {pid} is no longer the one that opened this connection")

    def _strength(self, peer: Peer) -> Strength:
        if not peer.certain:
            return Strength.WEAK_PEER
        return Strength.SHARED_UID if peer.uid in self._shared else Strength.OWN_UID


def _look(folder: ProcessFolder) -> tuple[object, ...]:
    """What must not change while we look: when it began, whose it is now, and what it runs."""
    status = folder.status()
    runs = folder.executable()
    program = None if runs is None else (runs.st_dev, runs.st_ino)
    uid, gid = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
    return (folder.start_time(), uid, gid, program, status.get("Groups"))


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
