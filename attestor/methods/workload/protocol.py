"""What a source of truth about a process is asked, and what it is shown.

A source is one way of looking at a process: its user, its container, its unit. It answers with selectors and decides
nothing: which identity they are worth is the server's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from attestor.instance import Strength
from attestor.methods.workload.proc import ProcessFolder
from attestor.selector import Selector
from ca.errors import Denied


class CantSay(Denied):
    """A source sees a process and can't say what it is; the others still count. The text says why."""

    code = "cant-say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process held still enough to be looked at: its open `/proc/<pid>`, and who it was when it connected."""

    pid: int
    uid: int
    gid: int
    start_time: int
    folder: ProcessFolder


class WorkloadSource(Protocol):
    """One way of looking at a process; `name` is its place in the table, and the type of its selectors."""

    name: str

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """What it is, as far as this source sees: nothing where there is nothing to see, never a guess.

        Raises:
            CallerGone: it ended.
            CantSay: it contradicts itself; this source says nothing of it, and asking again changes nothing.
            Unavailable: who must be asked does not answer; nothing may be given on half of the facts.
        """


@runtime_checkable
class Boundary(Protocol):
    """A source that sees what keeps processes apart better than their users do."""

    def strength(self, found: frozenset[Selector]) -> Strength | None:
        """What `found`, by this source, is worth; None when it adds nothing."""
