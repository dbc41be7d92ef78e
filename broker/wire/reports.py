"""The closing report as told at /v1/tasks/{id}/report."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from broker.model.closing import summary
from broker.model.lease import CloseReason
from broker.model.report import Fate, Line, Report
from broker.model.task import EndReason, TaskState
from broker.wire.body import Identity, LeaseName, Moment, TaskName, Told
from broker.wire.leases import GuaranteeTold


class ReportLine(Told):
    """What became of one lease."""

    lease: LeaseName
    task: TaskName
    role: str
    fate: Annotated[Fate, Field(strict=False)]
    issued_at: Moment | None = None
    acknowledged_at: Moment | None = None
    access_ended_at: Moment | None = None
    closed_at: Moment | None = None
    close_reason: Annotated[CloseReason, Field(strict=False)] | None = None
    lives_until: Moment | None = None
    sessions_may_live: bool
    verified_by: str | None = None
    guarantee: GuaranteeTold
    trouble: str | None = None
    end_due_at: Moment | None = None

    @classmethod
    def of(cls, line: Line) -> Self:
        """The body of `line`."""
        return cls.model_validate(line.to_json())


class ConfirmationTold(Told):
    """One enforcement point's word that it applied the end."""

    point: str
    epoch: str
    at: Moment


class ReportTold(Told):
    """The closing report of a task and those below it; `final` when it won't change any more.

    `expected` are the enforcement points registered at the broker, `unconfirmed` those of them that have not said they
    applied the end.
    """

    summary: str

    task: TaskName
    owner: Identity
    purpose: str
    state: Annotated[TaskState, Field(strict=False)]
    opened_at: Moment
    ended_at: Moment | None = None
    end_reason: Annotated[EndReason, Field(strict=False)] | None = None
    end_words: str | None = None
    made_at: Moment
    final: bool
    lives_until: Moment | None = None
    leases: list[ReportLine]
    confirmed: list[ConfirmationTold]
    expected: list[str]
    unconfirmed: list[str]
    unreadable: int = 0
    access_gone_after_ms: int | None = None
    epoch: str | None = None

    @classmethod
    def of(cls, report: Report) -> Self:
        """The body of `report`."""
        return cls.model_validate({**report.to_json(), "summary": summary(report)})
