"""Ask for a secret, and the one answer that holds it.

Nothing else of the REST surface holds a secret. `CredentialTold` keeps it as `Secret`: only written as JSON does it
show it; its repr, its errors and its Python form hide it (law 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from broker.model.act import Act, Action
from broker.model.decision import Decision
from broker.model.lease import Lease
from broker.model.role import Role
from broker.wire.body import Asked, Length, Level, Moment, Name, Shown, Stamp, Told, fault
from broker.wire.leases import LeaseTold
from ca.runtime.secret import Secret

_FIELD = Annotated[str, Field(max_length=64)]


class AskCredential(Asked):
    """Ask for one secret of a role.

    `ttl` may only shorten the role's. The rest is what the agent claims of its act: it can make the answer stricter,
    never milder; saying nothing counts as no confidence at all.
    """

    role: Name
    ttl: Length | None = None
    sensitivity: Level | None = None
    confidence: Annotated[int, Field(ge=0, le=100)] = 0
    tool: Name | None = None
    destination: Name | None = None

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.ttl is not None and self.ttl.total_seconds() <= 0:
            raise fault("`ttl` is longer than nothing")
        return self

    def to_act(self, role: Role) -> Act:
        """The act that is decided; `role` is the one named, as configured."""
        return Act(
            action=Action.OBTAIN,
            resource=role.full_name,
            sensitivity=role.sensitivity,
            tool=self.tool,
            destination=self.destination,
            claimed_sensitivity=self.sensitivity,
            confidence=self.confidence,
        )


class CredentialTold(Told):
    """The answer: what to connect to, the secret, and by when to acknowledge it."""

    lease: LeaseTold
    fields: dict[_FIELD, str | int]
    secret: dict[_FIELD, Shown] = Field(repr=False)
    ack_by: Moment
    decision: Stamp
    policies: list[Stamp]
    reason: str

    @classmethod
    def of(
        cls,
        lease: Lease,
        fields: Mapping[str, str | int],
        secret: Mapping[str, Secret],
        *,
        decision: Decision,
    ) -> Self:
        """The body of one hand-over."""
        return cls(
            lease=LeaseTold.of(lease),
            fields=dict(fields),
            secret=dict(secret),
            ack_by=lease.ack_by,
            decision=decision.id,
            policies=list(decision.policies),
            reason=decision.reason,
        )
