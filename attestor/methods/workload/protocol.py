"""What a source of truth about a process is asked, and what it is shown.

A source is one way of looking at a process: its user, its container, its unit. It answers with selectors and decides
nothing: which identity they are worth is the server's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from attestor.methods.workload.proc import ProcessFolder
from attestor.selector import Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process held still enough to be looked at: its open `/proc/<pid>`, and who it was when it connected."""

    pid: int
    uid: int
    gid: int
    start_time: int
    folder: ProcessFolder


class WorkloadSource(Protocol):
    """One way of looking at a process."""

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """What it is, as far as this source sees: nothing where it can't see, never a guess."""
