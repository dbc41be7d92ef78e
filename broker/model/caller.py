"""Who is calling: what was proven about the peer before its request was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from broker.model.ids import InstanceId
from ca.spiffe.id import SpiffeId
from ca.spiffe.x509svid import X509Peer


class Verb(StrEnum):
    """What an operator may be allowed, one by one."""

    READ_TASKS = "tasks:read"
    END_TASKS = "tasks:end"
    KILL_MANY = "tasks:kill"
    READ_LEASES = "leases:read"
    REVOKE_LEASES = "leases:revoke"
    DISOWN_LEASES = "leases:disown"
    READ_EVENTS = "events:read"
    READ_AUDIT = "audit:read"
    CONFIRM_EPOCHS = "epochs:confirm"
    MANAGE_OPERATORS = "operators:manage"
    MANAGE_TARGETS = "targets:manage"
    MANAGE_VALUES = "values:manage"
    READ_POLICY = "policy:read"


ALL_VERBS = frozenset(Verb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A peer that showed an X.509-SVID.

    `instance` is None when the SVID came from an issuer that doesn't name instances (an existing SPIRE): its tasks live
    by heartbeat and deadline. `not_after` is the leaf's end: a connection doesn't outlive it (traps 35). `peer` is how
    it proved itself, to be held against newer revocation lists.
    """

    id: SpiffeId
    instance: InstanceId | None
    not_after: datetime
    peer: X509Peer | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return str(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A peer on the operators' socket, or one whose certificate was bound to verbs by `sojourn operator add`."""

    name: str
    verbs: frozenset[Verb] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"operator:{self.name}"


Caller = Workload | Operator
