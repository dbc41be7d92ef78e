"""A lease whose access may still exist though its end was due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.model.ids import new_lease, new_task
from broker.model.lease import LATE, Handle, Lease, LeaseState
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = Lease(
    id=new_lease(NOW),
    task=new_task(NOW),
    task_version=1,
    role="orders-db/readonly",
    handle=Handle(target="orders-db", engine="fake", name="sj_one", facts={}),
    guarantee=Guarantee(
        new_access=NewAccess.AT_ONCE,
        new_access_within=1,
        open_sessions=OpenSessions.CUT,
        open_sessions_within=1,
        if_down=IfDown.TARGET_ENDS_IT,
        if_down_within=120,
    ),
    state=LeaseState.REVOKING,
    version=3,
    generation=1,
    intended_at=NOW,
    until=NOW + timedelta(minutes=2),
    last=NOW + timedelta(hours=1),
    ack_by=NOW + timedelta(seconds=30),
    due_at=NOW,
    broker="b1",
    end_due_at=NOW,
)


@pytest.mark.parametrize("state", [LeaseState.ACTIVE, LeaseState.IN_DOUBT, LeaseState.REVOKING], ids=str)
def test_it_is_overdue_from_that_moment_on(state: LeaseState) -> None:
    """Whatever is being done about it."""
    lease = replace(LEASE, state=state)
    assert not lease.is_overdue(NOW + LATE - timedelta(microseconds=1))
    assert lease.is_overdue(NOW + LATE)


@pytest.mark.parametrize(
    "changes",
    [{"end_due_at": None}, {"access_ended_at": NOW}, {"state": LeaseState.REVOKED}, {"state": LeaseState.EXPIRED}],
    ids=str,
)
def test_it_is_not_while_nothing_is_due_or_nothing_is_left(changes: dict[str, object]) -> None:
    """In use, ended, or closed."""
    assert not replace(LEASE, **changes).is_overdue(NOW + timedelta(days=1))  # type: ignore[arg-type]
