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


def test_the_document_says_everything_that_is_known() -> None:
    """Each member under its own name: whoever reads reports by machine loses nothing."""
    soon, late = "2026-11-23T12:00:05.000000Z", "2026-11-23T12:01:00.000000Z"
    given = _lease(
        state=LeaseState.REVOKING,
        acknowledged_at=LATER,
        access_ended_at=LATER,
        close_reason=CloseReason.ASKED,
        trouble="nobody is there",
    )
    closed = _lease(state=LeaseState.DISOWNED, intended_at=LATER, closed_at=LATER, end_due_at=LATER)
    first, second = (Line.of(one).to_json() for one in (given, closed))
    guarantee = first.pop("guarantee")
    assert guarantee == AT_ONCE.to_json()
    assert first == {
        "lease": given.id,
        "task": ENDED.id,
        "role": "orders-db/readonly",
        "fate": "gone",
        "issued_at": "2026-11-23T12:00:00.000000Z",
        "acknowledged_at": soon,
        "access_ended_at": soon,
        "closed_at": None,
        "close_reason": "asked",
        "lives_until": None,
        "sessions_may_live": False,
        "verified_by": "broker-1",
        "trouble": "nobody is there",
        "end_due_at": None,
    }
    assert (second["close_reason"], second["closed_at"], second["end_due_at"]) == (None, soon, soon)
    assert (second["lives_until"], second["acknowledged_at"], second["verified_by"]) == (late, None, None)


def test_the_document_of_a_task() -> None:
    """Who, what for, how it ended, and who has yet to say that it knows."""
    heard = [Confirmation(point="proxy", epoch="abc.3", at=LATER)]
    gone = _lease(state=LeaseState.REVOKED, access_ended_at=LATER, closed_at=LATER)
    found = Report.of(ENDED, [gone], LATER, heard, expected=["proxy", "mail"], epoch="abc.2", unreadable=0).to_json()
    (line,) = found.pop("leases")
    assert line["lease"] == gone.id
    assert found == {
        "task": ENDED.id,
        "owner": str(ENDED.owner),
        "purpose": ENDED.purpose,
        "state": "failed",
        "opened_at": "2026-11-23T12:00:00.000000Z",
        "ended_at": "2026-11-23T12:00:00.000000Z",
        "end_reason": "process-ended",
        "end_words": None,
        "made_at": "2026-11-23T12:00:05.000000Z",
        "final": True,
        "access_gone_after_ms": 5000,
        "epoch": "abc.2",
        "lives_until": None,
        "confirmed": [{"point": "proxy", "epoch": "abc.3", "at": "2026-11-23T12:00:05.000000Z"}],
        "expected": ["mail", "proxy"],
        "unconfirmed": ["mail"],
        "unreadable": 0,
    }
    alive = Report.of(task(), [gone], LATER, unreadable=1).to_json()
    assert (alive["ended_at"], alive["end_reason"], alive["final"], alive["unreadable"]) == (None, None, False, 1)
    assert alive["access_gone_after_ms"] is None


@pytest.mark.parametrize("unreadable", [0, 1])
def test_what_can_t_be_read_keeps_a_report_open(unreadable: int) -> None:
    """Nothing is known of such a row: neither is the report final nor access said to be gone."""
    gone = _lease(state=LeaseState.REVOKED, access_ended_at=LATER, closed_at=LATER)
    report = Report.of(ENDED, [gone], LATER, unreadable=unreadable)
    assert report.is_final is (not unreadable)
    assert (report.access_gone_after is None) is bool(unreadable)


def test_access_is_gone_when_the_last_one_is() -> None:
    """By the latest that was seen; never less than nothing; not while one is still being ended or in use."""
    before = _lease(state=LeaseState.REVOKED, access_ended_at=NOW - timedelta(seconds=1), closed_at=NOW)
    after = _lease(state=LeaseState.REVOKED, access_ended_at=LATER, closed_at=LATER)
    assert Report.of(ENDED, [before], LATER).access_gone_after == timedelta(0)
    assert Report.of(ENDED, [after, before], LATER).access_gone_after == timedelta(seconds=5)
    assert Report.of(ENDED, [], LATER).access_gone_after is None
    for state in (LeaseState.REVOKING, LeaseState.ACTIVE):
        assert Report.of(ENDED, [after, _lease(state=state)], LATER).access_gone_after is None


def test_each_line_says_whose_it_is() -> None:
    """A report is about a task and those below it."""
    below = task(parent=ENDED.id)
    lines = Report.of(ENDED, [_lease(), lease(below)], LATER).lines
    assert {line.task for line in lines} == {ENDED.id, below.id}
