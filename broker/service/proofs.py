"""Who may speak for a task: its instance, or the holder of the key it was opened with. Ids are never capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.model.caller import Workload
from broker.model.task import Task
from broker.wire import proof
from ca.errors import Exhausted, NotFound, Unauthenticated

_MOST_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a request showed besides its TLS peer: the proof header, and what it must have been made for."""

    header: str | None
    method: str
    path: str


class Proofs:
    """Judges proofs, and remembers each until it is too old to be shown again."""

    def __init__(self) -> None:
        self._seen: dict[str, datetime] = {}

    def demand(self, caller: Workload, task: Task, shown: Shown, now: datetime) -> None:
        """Let the caller through if it proves `task`.

        Raises:
            NotFound: it does not; it learns nothing about whether the task exists.
            Unauthenticated: it showed a proof that is malformed, stale or was shown before.
        """
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
