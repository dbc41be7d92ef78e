"""An act: what an agent wants to do, and where each fact about it comes from.

Facts have a source (DESIGN 4.3, traps 14). What the caller says of itself is *claimed* and may only make an answer
stricter; policies that let a claimed fact permit something are refused when they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from broker.model.scope import Sensitivity


class Source(StrEnum):
    """Who vouches for a fact."""

    ATTESTED = "attested"
    BROKER = "broker"
    ENFORCEMENT_POINT = "enforcement-point"
    CLAIMED = "claimed"


class Action(StrEnum):
    """The kinds of act the broker decides; each is an action of the Cedar schema."""

    OPEN = "open"
    OBTAIN = "obtain"
    RENEW = "renew"
    USE = "use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act.

    `resource` is the role (`orders-db/readonly`) for obtain and renew, the tool for use, the opener's SPIFFE ID for
    open. `sensitivity` is what the role's settings say (source: broker), `claimed_sensitivity` what the caller says:
    the higher counts. `confidence` is claimed, 0 to 100; missing is lowest.
    """

    action: Action
    resource: str
    sensitivity: Sensitivity = Sensitivity.RESTRICTED
    tool: str | None = None
    destination: str | None = None
    arguments_digest: str | None = None
    claimed_sensitivity: Sensitivity | None = None
    confidence: int = 0

    @property
    def effective_sensitivity(self) -> Sensitivity:
        """The higher of what we know and what the caller admits."""
        return max(self.sensitivity, self.claimed_sensitivity or Sensitivity.PUBLIC)
