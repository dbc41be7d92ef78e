"""Bodies of /v1/roles and /v1/targets: what may be asked for, with which guarantee, and where it would be made."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from broker.model.role import Guarantee, Role
from broker.wire.body import Length, Level, Moment, Page, Told
from broker.wire.leases import GuaranteeTold


class RoleTold(Told):
    """A role that may be asked for; `name` is what scopes and policies call it."""

    name: str
    target: str
    engine: str
    sensitivity: Level
    ttl: Length
    longest: Length
    ack_within: Length
    description: str = ""
    guarantee: GuaranteeTold

    @classmethod
    def of(cls, role: Role, guarantee: Guarantee) -> Self:
        """What is told of `role`; its settings stay inside."""
        return cls(
            name=role.full_name,
            target=role.target,
            engine=role.engine,
            sensitivity=role.sensitivity,
            ttl=role.ttl,
            longest=role.longest,
            ack_within=role.ack_within,
            description=role.description,
            guarantee=GuaranteeTold.of(guarantee),
        )


class RolePage(Page[RoleTold]):
    """Roles by name."""


class TargetTold(Told):
    """A target as the broker last met it; `trouble` says what stood in the way."""

    name: str
    engine: str
    state: Literal["up", "down", "unknown"]
    roles: list[str] = Field(default_factory=list)
    since: Moment | None = None
    trouble: str | None = None


class TargetPage(Page[TargetTold]):
    """Targets by name."""
