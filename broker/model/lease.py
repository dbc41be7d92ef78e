"""A lease: the life of one secret made outside.

    intended ──▶ active ──▶ revoking ──▶ revoked | expired | disowned
        └──▶ in_doubt ──────▲

`intended` is durable before anything exists outside (law 2). A create whose outcome is unknown makes the lease
`in_doubt`; it is undone by occupying the name, never by guessing. `revoked` means verified gone; what can't be revoked
closes as `expired` (law 5); what two operators gave up because its target is gone closes as `disowned`, not verified. A
lease has authority only while its task lives at `task_version`'s fence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from broker.errors import NotPossible
from broker.model.ids import LeaseId, TaskId
from broker.model.role import Guarantee


class LeaseState(StrEnum):
    """Where a lease stands."""

    INTENDED = "intended"
    ACTIVE = "active"
    IN_DOUBT = "in_doubt"
    REVOKING = "revoking"
    REVOKED = "revoked"
    EXPIRED = "expired"
    DISOWNED = "disowned"


class LeaseEvent(StrEnum):
    """What may happen to a lease."""

    ACTIVATED = "activated"
    LOST = "lost"  # the outcome of the create is unknown
    ABANDONED = "abandoned"  # the create certainly did not happen, or was undone in the same breath
    REISSUED = "reissued"
    ACKNOWLEDGED = "acknowledged"
    RENEWED = "renewed"
    REVOKE = "revoke"
    OCCUPIED = "occupied"  # an in-doubt name is ours for certain
    REFUSED = "refused"  # the target did not answer; tried again
    GONE = "gone"  # verified
    RAN_OUT = "ran_out"  # what can't be revoked came to its last second
    DISOWNED = "disowned"  # given up by two operators, not verified


_S, _E = LeaseState, LeaseEvent

TRANSITIONS: Mapping[LeaseState, Mapping[LeaseEvent, LeaseState]] = {
    _S.INTENDED: {_E.ACTIVATED: _S.ACTIVE, _E.LOST: _S.IN_DOUBT, _E.ABANDONED: _S.REVOKING},
    _S.ACTIVE: {
        _E.REISSUED: _S.ACTIVE,
        _E.ACKNOWLEDGED: _S.ACTIVE,
        _E.RENEWED: _S.ACTIVE,
        _E.REVOKE: _S.REVOKING,
    },
    _S.IN_DOUBT: {_E.OCCUPIED: _S.REVOKING, _E.REFUSED: _S.IN_DOUBT, _E.DISOWNED: _S.DISOWNED},
    _S.REVOKING: {
        _E.REFUSED: _S.REVOKING,
        _E.GONE: _S.REVOKED,
        _E.RAN_OUT: _S.EXPIRED,
        _E.DISOWNED: _S.DISOWNED,
    },
    _S.REVOKED: {},
    _S.EXPIRED: {},
    _S.DISOWNED: {},
}

IDENTITY = "svid"
"""The engine of tasks' own identities."""

EXCLUSIVE = "exclusive"
"""The fact of a handle that names what only one open lease may have at a time: `target/account`."""

CLOSED = frozenset(state for state, moves in TRANSITIONS.items() if not moves)
"""Nothing is left outside, or nobody looks any more."""


LATE = timedelta(seconds=30)
"""An ending that is not verified after this is told as overdue."""


class CloseReason(StrEnum):
    """Why a lease is being ended."""

    TASK_ENDED = "task-ended"
    NOT_ACKNOWLEDGED = "not-acknowledged"
    RAN_OUT = "ran-out"
    ASKED = "asked"
    OPERATOR = "operator"
    NEVER_MADE = "never-made"
    NARROWED = "narrowed"


def after(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """The state that follows.

    Raises:
        NotPossible: the table has no such move.
    """
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise NotPossible(f"a lease that is `{state}` can't be `{event}`", state=state, event=event)
    return following


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What was, or is to be, made outside: enough to find and destroy it, and no secret.

    `name` is the principal's name at the target (`engines/naming.py`); `facts` are the engine's own (JSON values), for
    instance the secret kind.
    """

    target: str
    engine: str
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as it stood at one version.

    `until` is the expiry at the target, moved by renewal; `last` the moment no renewal may pass. `generation` counts
    hand-overs: a re-issue replaces the secret of the same principal. `access_ended_at` is when nobody could use it any
    more, verified; `closed_at` when nothing was left at all. `end_due_at` is when access should have ended: from
    `LATE` after it until it is verified the lease is *overdue*.
    """

    id: LeaseId
    task: TaskId
    task_version: int
    role: str
    handle: Handle
    guarantee: Guarantee
    state: LeaseState
    version: int
    generation: int
    intended_at: datetime
    until: datetime
    last: datetime
    ack_by: datetime
    due_at: datetime
    broker: str
    attempts: int = 0
    acknowledged_at: datetime | None = None
    activated_at: datetime | None = None
    revoking_at: datetime | None = None
    close_reason: CloseReason | None = None
    access_ended_at: datetime | None = None
    closed_at: datetime | None = None
    trouble: str | None = None
    end_due_at: datetime | None = None

    @property
    def is_identity(self) -> bool:
        """Whether it is the task's own identity, and no secret: no budget counts it, no scope bounds it."""
        return self.handle.engine == IDENTITY

    def is_overdue(self, now: datetime) -> bool:
        """Whether access may still exist though its end was due."""
        unended = not self.is_closed and self.access_ended_at is None
        return unended and self.end_due_at is not None and self.end_due_at + LATE <= now

    @property
    def exclusive(self) -> str | None:
        """What no other open lease may have meanwhile."""
        found = self.handle.facts.get(EXCLUSIVE)
        return None if found is None else str(found)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left of it outside."""
        return self.state in CLOSED
