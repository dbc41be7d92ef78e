"""Bodies of /v1/leases: acknowledge, renew, and a lease with its guarantee as told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions
from broker.wire.body import Asked, LeaseName, Moment, Page, Stamp, TaskName, Told

_WITHIN = Annotated[int, Field(ge=0)] | Literal["unbounded"]


class NewAccessTold(Told):
    """When nobody can log in any more, and after how many seconds at most."""

    ends: Annotated[NewAccess, Field(strict=False)]
    within: _WITHIN


class OpenSessionsTold(Told):
    """What becomes of sessions that are open when access ends."""

    are: Annotated[OpenSessions, Field(strict=False)]
    within: _WITHIN


class IfDownTold(Told):
    """What happens while no broker runs."""

    then: Annotated[IfDown, Field(strict=False)]
    within: _WITHIN


class GuaranteeTold(Told):
    """What taking it back means; `swept` says whether what arrived late is found, by a list of the target's own."""

    new_access: NewAccessTold
    open_sessions: OpenSessionsTold
    if_we_are_down: IfDownTold
    swept: bool = True

    @classmethod
    def of(cls, guarantee: Guarantee) -> Self:
        """The body of `guarantee`."""
        return cls.model_validate(guarantee.to_json())

    def to_guarantee(self) -> Guarantee:
        """The value."""
        return Guarantee.from_json(self.model_dump())


class LeaseTold(Told):
    """A lease as it stood at `version`; nothing here gives access to anything.

    `end_due_at` is when its access should have ended; while it may still exist long after, the lease is overdue.
    """

    id: LeaseName
    task: TaskName
    role: str
    target: str
    name: Stamp
    state: Annotated[LeaseState, Field(strict=False)]
    version: int
    generation: int
    guarantee: GuaranteeTold
    intended_at: Moment
    until: Moment
    last: Moment
    ack_by: Moment
    acknowledged_at: Moment | None = None
    activated_at: Moment | None = None
    revoking_at: Moment | None = None
    close_reason: Annotated[CloseReason, Field(strict=False)] | None = None
    access_ended_at: Moment | None = None
    closed_at: Moment | None = None
    trouble: str | None = None
    end_due_at: Moment | None = None

    @classmethod
    def of(cls, lease: Lease) -> Self:
        """What may be told of `lease` to whoever proved its task, and to operators."""
        return cls(
            id=lease.id,
            task=lease.task,
            role=lease.role,
            target=lease.handle.target,
            name=lease.handle.name,
            state=lease.state,
            version=lease.version,
            generation=lease.generation,
            guarantee=GuaranteeTold.of(lease.guarantee),
            intended_at=lease.intended_at,
            until=lease.until,
            last=lease.last,
            ack_by=lease.ack_by,
            acknowledged_at=lease.acknowledged_at,
            activated_at=lease.activated_at,
            revoking_at=lease.revoking_at,
            close_reason=lease.close_reason,
            access_ended_at=lease.access_ended_at,
            closed_at=lease.closed_at,
            trouble=lease.trouble,
            end_due_at=lease.end_due_at,
        )


class LeasePage(Page[LeaseTold]):
    """Leases, newest first."""


class QuarantinedTold(Told):
    """A row of the store that can't be read: set aside, so that it stops no other."""

    table: str
    id: str
    reason: str
    since: Moment


class QuarantinePage(Page[QuarantinedTold]):
    """What was set aside, by table."""


class Acknowledge(Asked):
    """The secret was received: from now on nothing shows it again."""


class RenewLease(Asked):
    """Move the expiry ahead by the role's own window; how far a lease may go at all was said when it was asked for."""
