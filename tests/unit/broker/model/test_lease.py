"""A lease whose access may still exist though its end was due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model.lease import LATE, LeaseState
from fakes.nouns import NOW, lease, task

LEASE = lease(task(), state=LeaseState.REVOKING, end_due_at=NOW)


@pytest.mark.parametrize("state", [LeaseState.ACTIVE, LeaseState.IN_DOUBT, LeaseState.REVOKING], ids=str)
def test_it_is_overdue_from_that_moment_on(state: LeaseState) -> None:
    """Whatever is being done about it."""
    due = replace(LEASE, state=state)
    assert not due.is_overdue(NOW + LATE - timedelta(microseconds=1))
    assert due.is_overdue(NOW + LATE)


@pytest.mark.parametrize(
    "changes",
    [{"end_due_at": None}, {"access_ended_at": NOW}, {"state": LeaseState.REVOKED}, {"state": LeaseState.EXPIRED}],
    ids=str,
)
def test_it_is_not_while_nothing_is_due_or_nothing_is_left(changes: dict[str, object]) -> None:
    """In use, ended, or closed."""
    assert not replace(LEASE, **changes).is_overdue(NOW + timedelta(days=1))  # type: ignore[arg-type]
