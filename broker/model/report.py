"""The closing report of a task: what was issued, when each was verified gone, by whom, and what lives on until when.

A line claims no more than is known (law 5): `gone` only when somebody looked and nobody could use it any more. What
can't be taken back stands as `lives-on` with the moment its own clock ends it, and what is still being ended says so.
The report is made from the leases whenever it is asked for; it is final when every lease is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from broker.model.ids import LeaseId, TaskId
from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.receipt import written
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions
from broker.model.task import EndReason, Task, TaskState
from ca.spiffe.id import SpiffeId


class Fate(StrEnum):
    """What became of one lease."""

    IN_USE = "in-use"
    ENDING = "ending"  # access is being ended, or was not yet seen to have ended
    LIVES_ON = "lives-on"  # can't be taken back; ends by itself
    GONE = "gone"  # verified
    EXPIRED = "expired"  # came to its own end
    NEVER_MADE = "never-made"
    NOT_VERIFIED = "not-verified"  # given up by two operators: nobody looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One lease in the report.

    `lives_until` is the last moment a lease that isn't over may still open something; None when it is over, and when
    it lives on and nothing but a rotation ends it.
    `end_due_at` is when access should have ended, of what is not over: after `lease.LATE` it is overdue.
    `sessions_may_live` says that sessions opened before are not cut by the end of access.
    """

    lease: LeaseId
    task: TaskId
    role: str
    fate: Fate
    issued_at: datetime | None
    acknowledged_at: datetime | None
    access_ended_at: datetime | None
    closed_at: datetime | None
    close_reason: CloseReason | None
    lives_until: datetime | None
    sessions_may_live: bool
    verified_by: str | None
    guarantee: Guarantee
    trouble: str | None
    end_due_at: datetime | None = None

    @classmethod
    def of(cls, lease: Lease) -> Self:
        """What is known of `lease`."""
        fate = _fate(lease)
        over = fate in {Fate.GONE, Fate.EXPIRED, Fate.NEVER_MADE}
        return cls(
            lease=lease.id,
            task=lease.task,
            role=lease.role,
            fate=fate,
            issued_at=lease.activated_at,
            acknowledged_at=lease.acknowledged_at,
            access_ended_at=lease.access_ended_at,
            closed_at=lease.closed_at,
            close_reason=lease.close_reason,
            lives_until=None if over or _is_endless(lease) else lease.until,
            end_due_at=None if over else lease.end_due_at,
            sessions_may_live=lease.activated_at is not None and lease.guarantee.open_sessions is OpenSessions.SURVIVE,
            verified_by=lease.broker if fate is Fate.GONE else None,
            guarantee=lease.guarantee,
            trouble=lease.trouble,
        )

    def to_json(self) -> dict[str, Any]:
        """The form of the REST surface."""
        return {
            "lease": self.lease,
            "task": self.task,
            "role": self.role,
            "fate": str(self.fate),
            "issued_at": _moment(self.issued_at),
            "acknowledged_at": _moment(self.acknowledged_at),
            "access_ended_at": _moment(self.access_ended_at),
            "closed_at": _moment(self.closed_at),
            "close_reason": None if self.close_reason is None else str(self.close_reason),
            "lives_until": _moment(self.lives_until),
            "sessions_may_live": self.sessions_may_live,
            "verified_by": self.verified_by,
            "guarantee": self.guarantee.to_json(),
            "trouble": self.trouble,
            "end_due_at": _moment(self.end_due_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """One enforcement point's own word that it applied the epoch of this task's end."""

    point: str
    epoch: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known, at `made_at`, of everything a task and those below it were given.

    `epoch` is the event that told of its end, while it is kept. `expected` are the enforcement points that are
    registered here; `confirmed` is each one's own word. `unreadable` counts leases whose rows can't be read: nothing
    is known of them.
    """

    task: TaskId
    owner: SpiffeId
    purpose: str
    state: TaskState
    opened_at: datetime
    ended_at: datetime | None
    end_reason: EndReason | None
    end_words: str | None
    made_at: datetime
    lines: tuple[Line, ...]
    confirmed: tuple[Confirmation, ...] = ()
    expected: tuple[str, ...] = ()
    epoch: str | None = None
    unreadable: int = 0

    @classmethod
    def of(
        cls,
        task: Task,
        leases: Iterable[Lease],
        now: datetime,
        confirmed: Iterable[Confirmation] = (),
        *,
        expected: Iterable[str] = (),
        epoch: str | None = None,
        unreadable: int = 0,
    ) -> Self:
        """The report on `task` as it stands at `now`; lines in the order in which they were intended."""
        ordered = sorted(leases, key=lambda lease: (lease.intended_at, lease.id))
        return cls(
            task=task.id,
            owner=task.owner,
            purpose=task.purpose,
            state=task.state,
            opened_at=task.opened_at,
            ended_at=task.ended_at,
            end_reason=task.end_reason,
            end_words=task.end_words,
            made_at=now,
            lines=tuple(Line.of(lease) for lease in ordered),
            confirmed=tuple(confirmed),
            expected=tuple(sorted(expected)),
            epoch=epoch,
            unreadable=unreadable,
        )

    @property
    def is_final(self) -> bool:
        """Whether the task ended and nothing is left outside: the report won't change any more."""
        return self.ended_at is not None and not self.unreadable and all(line.closed_at for line in self.lines)

    @property
    def unconfirmed(self) -> Sequence[str]:
        """Registered points that have not said they applied the end."""
        said = {one.point for one in self.confirmed}
        return [point for point in self.expected if point not in said]

    @property
    def access_gone_after(self) -> timedelta | None:
        """How long after the end the last of what can be taken back was seen to be gone; None before, or with none."""
        if (
            self.ended_at is None
            or self.unreadable
            or any(line.fate in {Fate.IN_USE, Fate.ENDING} for line in self.lines)
        ):
            return None
        seen = [line.access_ended_at for line in self.lines if line.fate is Fate.GONE]
        moments = [moment for moment in seen if moment is not None]
        return max(timedelta(0), max(moments) - self.ended_at) if moments else None

    @property
    def lives_until(self) -> datetime | None:
        """When the last thing that is not over and has an end ends by itself."""
        return max((line.lives_until for line in self.lines if line.lives_until is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """The form of the REST surface."""
        return {
            "task": self.task,
            "owner": str(self.owner),
            "purpose": self.purpose,
            "state": str(self.state),
            "opened_at": written(self.opened_at),
            "ended_at": _moment(self.ended_at),
            "end_reason": None if self.end_reason is None else str(self.end_reason),
            "end_words": self.end_words,
            "made_at": written(self.made_at),
            "final": self.is_final,
            "access_gone_after_ms": _milliseconds(self.access_gone_after),
            "epoch": self.epoch,
            "lives_until": _moment(self.lives_until),
            "leases": [line.to_json() for line in self.lines],
            "confirmed": [{"point": one.point, "epoch": one.epoch, "at": written(one.at)} for one in self.confirmed],
            "expected": list(self.expected),
            "unconfirmed": list(self.unconfirmed),
            "unreadable": self.unreadable,
        }


def _fate(lease: Lease) -> Fate:
    if lease.state is LeaseState.REVOKED:
        return Fate.NEVER_MADE if lease.close_reason is CloseReason.NEVER_MADE else Fate.GONE
    if lease.state is LeaseState.DISOWNED:
        return Fate.NOT_VERIFIED
    if lease.state is LeaseState.EXPIRED:
        if lease.activated_at is None:
            return Fate.NEVER_MADE
        return Fate.LIVES_ON if _is_endless(lease) else Fate.EXPIRED
    if lease.access_ended_at is not None:
        return Fate.GONE  # nobody can use it; only its remains are still to be cleared away
    if lease.state is LeaseState.ACTIVE:
        return Fate.IN_USE
    return Fate.ENDING if lease.guarantee.revocable else Fate.LIVES_ON


def _is_endless(lease: Lease) -> bool:
    guarantee = lease.guarantee
    rotated = guarantee.new_access is NewAccess.AT_ROTATION or lease.state is LeaseState.DISOWNED
    return guarantee.if_down is IfDown.NOTHING_ENDS_IT and rotated


def _milliseconds(length: timedelta | None) -> int | None:
    return None if length is None else length // timedelta(milliseconds=1)


def _moment(value: datetime | None) -> str | None:
    return None if value is None else written(value)
