"""A role: a named way to obtain one secret, and what taking it back means.

A guarantee has three answers (DESIGN 2, traps 11): when new access ends, what becomes of open sessions, and what
happens if we are down. It is told to the agent with the secret and kept on the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from broker.model.scope import Sensitivity


class NewAccess(StrEnum):
    """When nobody can log in any more."""

    AT_ONCE = "at-once"
    AT_EXPIRY = "at-expiry"
    AT_ROTATION = "at-rotation"


class OpenSessions(StrEnum):
    """What becomes of sessions that are open when access ends."""

    CUT = "cut"
    SURVIVE = "survive"
    NONE = "none"


class IfDown(StrEnum):
    """What happens while no broker runs."""

    TARGET_ENDS_IT = "target-ends-it"
    NOTHING_ENDS_IT = "nothing-ends-it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """The three answers; each `…_within` is in whole seconds, None meaning without bound.

    `swept` says whether the target can list its principals: where it can't, what arrived after everybody had given it
    up is found by nobody.
    """

    new_access: NewAccess
    new_access_within: int | None
    open_sessions: OpenSessions
    open_sessions_within: int | None
    if_down: IfDown
    if_down_within: int | None
    swept: bool = True

    @property
    def revocable(self) -> bool:
        """Whether a lease under it may close as `revoked`; otherwise it closes as `expired`."""
        return self.new_access is NewAccess.AT_ONCE

    def to_json(self) -> dict[str, Any]:
        """The form of the REST surface and of the store."""
        return {
            "new_access": {"ends": str(self.new_access), "within": _seconds(self.new_access_within)},
            "open_sessions": {"are": str(self.open_sessions), "within": _seconds(self.open_sessions_within)},
            "if_we_are_down": {"then": str(self.if_down), "within": _seconds(self.if_down_within)},
            "swept": self.swept,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Guarantee:
        """The inverse of `to_json`."""
        return cls(
            new_access=NewAccess(value["new_access"]["ends"]),
            new_access_within=_number(value["new_access"]["within"]),
            open_sessions=OpenSessions(value["open_sessions"]["are"]),
            open_sessions_within=_number(value["open_sessions"]["within"]),
            if_down=IfDown(value["if_we_are_down"]["then"]),
            if_down_within=_number(value["if_we_are_down"]["within"]),
            swept=bool(value.get("swept", True)),
        )


def _seconds(number: int | None) -> int | str:
    return "unbounded" if number is None else number


def _number(value: int | str) -> int | None:
    return None if value == "unbounded" else int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role of one target.

    `ttl` is the window by which expiry at the target is kept ahead (renewal moves it); `longest` bounds the lease's
    whole life. `ack_within` is how long a handed-over secret may stay unacknowledged. `settings` belong to the engine
    (postgres: `groups`, `secret_kind`).
    """

    target: str
    name: str
    engine: str
    sensitivity: Sensitivity
    ttl: timedelta
    longest: timedelta
    ack_within: timedelta
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """`target/role`, the name scopes and policies use."""
        return f"{self.target}/{self.name}"
