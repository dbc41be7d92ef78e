"""A changed rule file takes nobody's identity by itself, beyond a number an operator sets (traps 26).

A file that parses may still be the wrong one. So before a change is taken over, the instances there are are asked what
they would lose by it; when more than `most` would lose an identity, the former rules stay in force, the change is
*held*, and an operator is told. `sojourn rule diff` shows who, `sojourn rule reload --confirm` takes it over. What is
held is judged again when the files change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from attestor.server.dry_run import DryRun
from attestor.server.rule_source import RuleSource, Seen
from ca.runtime import log

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A change that was not taken over: how many instances would lose an identity, of how many that live."""

    seen: Seen
    losing: int
    living: int

    def __str__(self) -> str:
        return (
            f"held: {self.losing} of {self.living} live instances would lose an identity by the newest files;"
            " `sojourn rule reload --confirm` takes them over"
        )


class RuleHold:
    """One for each server process."""

    def __init__(self, rules: RuleSource, dry_run: DryRun, most: int) -> None:
        self._rules, self._dry_run, self._most = rules, dry_run, most
        self.held: Held | None = None

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why the newest files are not all in force; empty when they are."""
        return (*self._rules.trouble, *([] if self.held is None else [str(self.held)]))

    async def tick(self, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Judge the files again if one of them changed."""
        seen = self._rules.look()
        if seen != self._rules.seen and (self.held is None or seen != self.held.seen):
            await self.again()

    async def again(self, *, confirm: bool = False) -> None:
        """Take the files over, unless that would take too many identities and nobody confirmed it."""
        if not confirm:
            seen = self._rules.look()
            found = await self._dry_run.compare(self._rules.draft())
            if found.losing > self._most:
                self.held = Held(seen=seen, losing=found.losing, living=found.looked_at)
                _log.warning("changed rules are held", losing=found.losing, living=found.looked_at)
                return
        self.held = None
        self._rules.reload()
