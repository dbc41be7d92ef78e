"""The closing report in one sentence: it claims no more than is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model.closing import summary, written_span
from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.report import Confirmation, Report
from broker.model.role import NewAccess, OpenSessions
from broker.model.task import EndReason, TaskState
from fakes.nouns import AT_ONCE, NOW, lease, task

SOON = NOW + timedelta(milliseconds=43)
MINUTE = NOW + timedelta(minutes=1)
LATER = NOW + timedelta(minutes=3, seconds=20)
ENDED = task(state=TaskState.DONE, ended_at=NOW, end_reason=EndReason.SAID_SO)
STAYS = replace(AT_ONCE, new_access=NewAccess.AT_EXPIRY, open_sessions=OpenSessions.SURVIVE)
POINTS = [f"spiffe://example.org/gateway/{number}" for number in range(5)]


def gone(**changed: Any) -> Lease:
    """One that was seen to be gone."""
    said = {"state": LeaseState.REVOKED, "access_ended_at": SOON, "closed_at": LATER, **changed}
    return lease(ENDED, **said)


def said(*points: str) -> list[Confirmation]:
    """Their word."""
    return [Confirmation(point=point, epoch="life.7", at=SOON) for point in points]


@pytest.mark.parametrize(
    ("leases", "confirmed", "expected", "sentence"),
    [
        ([], [], [], "nothing was given"),
        ([gone()], [], [], "access gone at +43 ms"),
        ([gone(), gone(access_ended_at=LATER)], [], [], "access gone at +3 min 20 s"),
        ([gone(access_ended_at=NOW - timedelta(hours=1))], [], [], "access gone at +0 ms"),
        ([gone()], POINTS, POINTS, "access gone at +43 ms, 5 of 5 confirmed"),
        ([gone()], POINTS[:4], POINTS, f"access gone at +43 ms, 4 of 5 confirmed, not yet {POINTS[4]}"),
        ([gone()], [], POINTS, f"access gone at +43 ms, 0 of 5 confirmed, not yet {', '.join(POINTS[:3])} and 2 more"),
        ([gone()], ["operator:eve"], [], "access gone at +43 ms, 1 confirmed"),
        ([gone()], ["operator:eve"], POINTS[:1], f"access gone at +43 ms, 0 of 1 confirmed, not yet {POINTS[0]}"),
        (
            [gone(), lease(ENDED, state=LeaseState.REVOKING, guarantee=STAYS)],
            [],
            [],
            f"access gone at +43 ms; 1 of orders-db/readonly lives until {MINUTE:%H:%M:%S}",
        ),
        (
            [lease(ENDED, state=LeaseState.REVOKING, guarantee=STAYS)],
            [],
            [],
            f"nothing was out that could be taken back; 1 of orders-db/readonly lives until {MINUTE:%H:%M:%S}",
        ),
        (
            [gone(), lease(ENDED, state=LeaseState.REVOKING)],
            [],
            POINTS[:1],
            f"access is being ended: 1 of 2 gone, not yet orders-db/readonly, 0 of 1 confirmed, not yet {POINTS[0]}",
        ),
        ([gone(close_reason=CloseReason.NEVER_MADE)], [], [], "nothing was given"),
        (
            [gone(guarantee=replace(AT_ONCE, open_sessions=OpenSessions.SURVIVE))],
            [],
            [],
            "access gone at +43 ms; open sessions of 1 may live on",
        ),
    ],
)
def test_the_sentence(leases: list[Lease], confirmed: list[str], expected: list[str], sentence: str) -> None:
    """What is gone, when and by whose word; what lives on says until when; what is not known is not claimed."""
    assert summary(Report.of(ENDED, leases, LATER, said(*confirmed), expected=expected)) == sentence


def test_a_task_that_lives_has_no_end_to_tell_of() -> None:
    """It says what is in use."""
    alive = task()
    assert summary(Report.of(alive, [lease(alive)], LATER)) == "the task is active, secrets in use: 1"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_940, "59.9 s"), (60_000, "1 min 0 s"), (-5, "0 ms")],
)
def test_spans(milliseconds: int, words: str) -> None:
    """The unit one reads."""
    assert written_span(timedelta(milliseconds=milliseconds)) == words
