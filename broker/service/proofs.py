"""Who may speak for a task: its instance, or the holder of the key it was opened with. Ids are never capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.model.caller import Caller, Operator, Verb, Workload
from broker.model.task import Task
from broker.wire import proof
from ca.errors import Denied, Exhausted, NotFound, Unauthenticated

_MOST_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a request showed besides its TLS peer: the proof header, and what it must have been made for."""

    header: str | None
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as every use case gets it: who, proving what, when."""

    caller: Caller
    shown: Shown
    now: datetime

    @property
    def workload(self) -> Workload:
        """The caller as a workload. Raises Denied: an operator has no task of its own."""
        if isinstance(self.caller, Operator):
            raise Denied("an operator has no task of its own, this is for workloads that show an SVID")
        return self.caller

    def demand(self, verb: Verb) -> Operator:
        """The caller as an operator who may `verb`. Raises Denied."""
        if not isinstance(self.caller, Operator) or verb not in self.caller.verbs:
            raise Denied(f"this needs an operator with the verb `{verb}`", verb=str(verb))
        return self.caller


class Proofs:
    """Judges proofs, and remembers each until it is too old to be shown again."""

    def __init__(self) -> None:
        self._seen: dict[str, datetime] = {}

    def demand(self, asked: Asked, task: Task) -> None:
        """Let the caller through if it proves `task`.

        Raises:
            NotFound: it does not; it learns nothing about whether the task exists.
            Unauthenticated: it showed a proof that is malformed, stale or was shown before.
        """
        caller, shown, now = asked.workload, asked.shown, asked.now
        if task.instance is not None and caller.instance == task.instance:
            if caller.id.trust_domain == task.owner.trust_domain:
                return
        elif task.key is not None and shown.header is not None:
            found = proof.verify(shown.header, shown.method, shown.path, now)
            if found.thumbprint == task.key and caller.id == task.owner:
                self._once(found, now)
                return
        raise NotFound("no such task, or it is not yours", task=task.id)

    def _once(self, found: proof.Proof, now: datetime) -> None:
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen = {name: until for name, until in self._seen.items() if until > now}
        if len(self._seen) >= _MOST_REMEMBERED:
            raise Exhausted("too many proofs are being shown at once, try again in a minute")
        if found.id in self._seen and self._seen[found.id] > now:
            raise Unauthenticated("the proof was shown before, expected a new one for each request")
        self._seen[found.id] = found.good_until
