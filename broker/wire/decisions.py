"""Bodies of /v1/decisions: may this act be done, and the answer.

What an agent asks about itself is advice: it vouches for every fact, and nobody enforces the answer.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from broker.model.act import Act, Action
from broker.model.decision import Decision, Effect
from broker.model.scope import Sensitivity
from broker.wire.body import Asked, Level, Moment, Name, Stamp, TaskName, Told


class AskDecision(Asked):
    """Ask whether the task may do something: use a tool, or obtain or renew a role."""

    task: TaskName
    action: Annotated[Action, Field(strict=False)] = Action.USE
    resource: Name
    tool: Name | None = None
    destination: Name | None = None
    arguments_digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    sensitivity: Level | None = None
    confidence: Annotated[int, Field(ge=0, le=100)] = 0

    def to_act(self, sensitivity: Sensitivity) -> Act:
        """The act; `sensitivity` is what the broker knows of its resource."""
        return Act(
            action=self.action,
            resource=self.resource,
            sensitivity=sensitivity,
            tool=self.tool,
            destination=self.destination,
            arguments_digest=self.arguments_digest,
            claimed_sensitivity=self.sensitivity,
            confidence=self.confidence,
        )


class DecisionTold(Told):
    """A decision: who decided, why, and the least changes of which each alone would have permitted."""

    id: Stamp
    effect: Annotated[Effect, Field(strict=False)]
    policies: list[Stamp]
    reason: str
    policy_version: Stamp
    decided_at: Moment
    nearest: list[str]

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """The body of `decision`."""
        return cls(
            id=decision.id,
            effect=decision.effect,
            policies=list(decision.policies),
            reason=decision.reason,
            policy_version=decision.policy_version,
            decided_at=decision.decided_at,
            nearest=list(decision.nearest),
        )
