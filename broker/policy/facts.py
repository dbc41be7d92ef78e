"""What is known when an act is decided, each fact with who vouches for it (DESIGN 4.3, traps 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.model.observed import Observation
from broker.model.role import Role
from broker.model.scope import Scope
from ca.spiffe.id import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts beside caller, task and act.

    Attested: `strength` of the caller's attestation and whether its process is seen to live (`observation`).
    Broker: its own `trust_domain`; for obtain and renew the `role` as configured; for open the scope that is
    `requested` and how long it `lasts`; `roles` are the others there are, from which a nearest change may be named.
    Claimed: the `purpose` said when a task is opened; later the task's own counts.
    """

    strength: str
    observation: Observation
    trust_domain: TrustDomain
    role: Role | None = None
    requested: Scope | None = None
    lasts: timedelta | None = None
    purpose: str = ""
    roles: Sequence[Role] = ()
