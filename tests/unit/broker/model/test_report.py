"""The closing report claims no more than is known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.report import Confirmation, Fate, Line, Report
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions
from broker.model.task import EndReason, TaskState
from fakes.nouns import AT_ONCE, NOW, lease, task

LATER = NOW + timedelta(seconds=5)
ENDED = task(state=TaskState.FAILED, ended_at=NOW, end_reason=EndReason.PROCESS_ENDED)
AT_EXPIRY = replace(AT_ONCE, new_access=NewAccess.AT_EXPIRY, open_sessions=OpenSessions.SURVIVE)
ENDLESS = replace(AT_EXPIRY, new_access=NewAccess.AT_ROTATION, if_down=IfDown.NOTHING_ENDS_IT, if_down_within=None)


def _lease(**changed: Any) -> Lease:
    return lease(ENDED, **changed)


@pytest.mark.parametrize(
    ("changed", "fate"),
    [
        ({}, Fate.IN_USE),
        ({"state": LeaseState.INTENDED, "activated_at": None}, Fate.ENDING),
        ({"state": LeaseState.IN_DOUBT, "activated_at": None}, Fate.ENDING),
        ({"state": LeaseState.REVOKING}, Fate.ENDING),
        ({"state": LeaseState.REVOKING, "guarantee": AT_EXPIRY}, Fate.LIVES_ON),
        ({"state": LeaseState.REVOKING, "access_ended_at": LATER}, Fate.GONE),
        ({"state": LeaseState.REVOKED, "access_ended_at": LATER, "closed_at": LATER}, Fate.GONE),
        ({"state": LeaseState.REVOKED, "close_reason": CloseReason.NEVER_MADE, "closed_at": LATER}, Fate.NEVER_MADE),
        ({"state": LeaseState.EXPIRED, "guarantee": AT_EXPIRY, "closed_at": LATER}, Fate.EXPIRED),
    ],
)
def test_what_became_of_a_lease(changed: dict[str, Any], fate: Fate) -> None:
    """`gone` needs somebody who looked; what can't be taken back lives on and says until when."""
    line = Line.of(_lease(**changed))
    assert line.fate is fate
    over = fate in {Fate.GONE, Fate.EXPIRED, Fate.NEVER_MADE}
    assert line.lives_until == (None if over else NOW + timedelta(minutes=1))
    assert (line.verified_by == "broker-1") is (fate is Fate.GONE)


@pytest.mark.parametrize(("guarantee", "survive"), [(AT_ONCE, False), (AT_EXPIRY, True)])
def test_open_sessions_are_told(guarantee: Guarantee, *, survive: bool) -> None:
    """Where sessions outlive the end of access the report says so, unless none could ever be opened."""
    assert Line.of(_lease(guarantee=guarantee)).sessions_may_live is survive
    never = _lease(guarantee=guarantee, state=LeaseState.INTENDED, activated_at=None)
    assert not Line.of(never).sessions_may_live


def test_what_nothing_ends_has_no_moment() -> None:
    """A secret that only a rotation ends is not said to end at a lease's `until`."""
    line = Line.of(_lease(state=LeaseState.REVOKING, guarantee=ENDLESS))
    assert line.fate is Fate.LIVES_ON
    assert line.lives_until is None


def test_a_report_is_final_when_nothing_is_left() -> None:
    """It is final once the task ended and every lease is closed; an open one keeps it open."""
    closed = _lease(state=LeaseState.REVOKED, access_ended_at=LATER, closed_at=LATER)
    assert Report.of(ENDED, [closed], LATER).is_final
    assert Report.of(ENDED, [], LATER).is_final
    assert not Report.of(task(), [], LATER).is_final
    cleaning = _lease(state=LeaseState.REVOKING, access_ended_at=LATER)
    assert not Report.of(ENDED, [closed, cleaning], LATER).is_final


def test_lines_stand_in_order_and_the_last_end_is_told() -> None:
    """By intention; `lives_until` is the latest of those that are not over."""
    first = _lease(until=NOW + timedelta(minutes=9))
    second = _lease(intended_at=LATER, until=NOW + timedelta(minutes=3))
    report = Report.of(ENDED, [second, first], LATER, [Confirmation(point="proxy", epoch="abc.3", at=LATER)])
    assert [line.lease for line in report.lines] == [first.id, second.id]
    assert report.lives_until == NOW + timedelta(minutes=9)
    told = json.loads(json.dumps(report.to_json()))
    assert told["confirmed"] == [{"point": "proxy", "epoch": "abc.3", "at": "2026-11-23T12:00:05.000000Z"}]
    assert told["end_reason"] == "process-ended"
    assert told["leases"][0]["fate"] == "in-use"


def test_each_line_says_whose_it_is() -> None:
    """A report is about a task and those below it."""
    below = task(parent=ENDED.id)
    lines = Report.of(ENDED, [_lease(), lease(below)], LATER).lines
    assert {line.task for line in lines} == {ENDED.id, below.id}
