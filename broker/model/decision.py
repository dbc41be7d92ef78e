"""A decision, and the permit only a permitting one can be turned into.

`lifecycle` takes a `Permit` and nothing else; a `Permit` is made by `Permit.of`, which refuses every decision that does
not permit. So nothing can be made outside without a decision that allowed it (aesthetics, rule 7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from broker.errors import Refused
from broker.model.act import Act
from broker.model.caller import Workload
from broker.model.ids import DecisionId
from broker.model.task import Task


class Effect(StrEnum):
    """The answer."""

    PERMIT = "permit"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One answer about one act.

    `policies` are the ids of the deciding policies: those that permitted, or the forbids that refused; empty when
    nothing permitted. `reason` is one sentence for the agent's log. `nearest` names the fewest changes that would have
    permitted, or is empty. `policy_version` is the digest of the policy set that answered.
    """

    id: DecisionId
    effect: Effect
    policies: tuple[str, ...]
    reason: str
    policy_version: str
    decided_at: datetime
    nearest: tuple[str, ...] = field(default=())

    @property
    def permits(self) -> bool:
        """Whether the act may be done."""
        return self.effect is Effect.PERMIT


_KEY = object()


class Permit:
    """Proof that one act of one task at one version was decided and permitted."""

    __slots__ = ("act", "caller", "decision", "task")

    def __init__(self, key: object, caller: Workload, task: Task, act: Act, decision: Decision) -> None:
        if key is not _KEY:
            raise RuntimeError("a Permit is made by Permit.of")
        self.caller, self.task, self.act, self.decision = caller, task, act, decision

    @classmethod
    def of(cls, caller: Workload, task: Task, act: Act, decision: Decision) -> Self:
        """Turn a permitting decision into a permit.

        Raises:
            Refused: the decision denies.
        """
        if not decision.permits:
            raise Refused(decision.reason, policies=", ".join(decision.policies), decision=decision.id)
        return cls(_KEY, caller, task, act, decision)
