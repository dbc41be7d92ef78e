"""Who may speak for a task: its instance, or the holder of the key it was opened with. Ids are never capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from attestor.wire.task_identity import TASK_PATH
from broker.model.caller import Caller, Operator, Verb, Workload
from broker.model.ids import TaskId
from broker.model.task import Task
from broker.wire import proof
from ca.errors import Denied, Exhausted, NotFound, Unauthenticated

_MOST_REMEMBERED = 5_000
"""Proofs of one key within the time they could be shown again; nobody's proofs use up another's places."""


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
        self._seen: dict[str, dict[str, datetime]] = {}

    @staticmethod
    def read(asked: Asked) -> proof.Proof | None:
        """The proof a request shows, if any. It is read before anything is looked up, so it finds out nothing.

        Raises:
            Unauthenticated: it is malformed, stale, or was made for something else.
        """
        header = asked.shown.header
        if header is None:
            return None
        return proof.verify(header, asked.shown.method, asked.shown.path, asked.now)

    def demand(self, asked: Asked, task: Task, shown: proof.Proof | None) -> None:
        """Let the caller through if it proves `task`: by its instance, the task's identity, or `shown`, good once.

        Raises:
            NotFound: it does not; it learns nothing about whether the task exists.
            Unauthenticated: its own proof was shown before.
        """
        caller = asked.workload
        if caller.id.path.startswith(TASK_PATH) and not is_own_identity(caller, task):
            raise not_yours(task.id)  # it was given for one task, and speaks for no other of the same process
        if task.instance is not None and caller.instance == task.instance:
            if caller.id.trust_domain == task.owner.trust_domain:
                return
        elif shown is not None and shown.thumbprint == task.key and caller.id == task.owner:
            self._once(shown, asked.now)
            return
        raise not_yours(task.id)

    def _once(self, shown: proof.Proof, now: datetime) -> None:
        if shown.thumbprint not in self._seen:
            self._forget(now)
        seen = self._seen.setdefault(shown.thumbprint, {})
        if len(seen) >= _MOST_REMEMBERED:
            self._forget(now)
            seen = self._seen.setdefault(shown.thumbprint, {})
        if shown.id in seen and seen[shown.id] >= now:
            raise Unauthenticated("the proof was shown before, expected a new one for each request")
        if len(seen) >= _MOST_REMEMBERED:
            raise Exhausted("too many proofs of this key were shown in a short time, try again in a minute")
        seen[shown.id] = shown.good_until

    def _forget(self, now: datetime) -> None:
        """What is too old to be shown again; keys are those of tasks, so there are as few as there are of them."""
        for key, seen in list(self._seen.items()):
            self._seen[key] = {name: until for name, until in seen.items() if until >= now}
            if not self._seen[key]:
                del self._seen[key]


def is_own_identity(caller: Workload, task: Task) -> bool:
    """Whether the caller shows the task's own identity (`broker/engines/svid.py`)."""
    return caller.id == task.owner.trust_domain.member(TASK_PATH + task.id)


def acting(caller: Workload, chain: Sequence[Task]) -> Workload:
    """Who decides under which name: whoever shows the task's own identity acts as its owner."""
    if chain and is_own_identity(caller, chain[-1]):
        return replace(caller, id=chain[-1].owner)
    return caller


def not_yours(task: TaskId) -> NotFound:
    """One sentence for a task that doesn't exist and for another's."""
    return NotFound("no such task, or it is not yours", task=task)
