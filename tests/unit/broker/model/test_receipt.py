"""Receipts in their one JSON form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from broker.model.ids import new_lease, new_task
from broker.model.receipt import Receipt, ReceiptKind, read_moment, written
from ca.errors import Malformed
from fakes.nouns import NOW

RECEIPT = Receipt(
    kind=ReceiptKind.LEASE_ACTIVATED,
    at=NOW,
    actor="spiffe://example.org/agents/billing",
    task=new_task(NOW),
    lease=new_lease(NOW),
    body={"role": "orders-db/readonly", "generation": 1},
)


def test_json_there_and_back() -> None:
    """A receipt survives its JSON form, with and without task and lease."""
    assert Receipt.from_json(RECEIPT.to_json()) == RECEIPT
    bare = Receipt(kind=ReceiptKind.OPERATOR_CHANGED, at=NOW, actor="operator:ada")
    assert Receipt.from_json(bare.to_json()) == bare


def test_a_moment_has_one_spelling() -> None:
    """Six digits in UTC whatever the zone; any other spelling is refused."""
    there = timezone(timedelta(hours=2))
    assert written(datetime(2026, 1, 31, 14, 0, tzinfo=there)) == "2026-01-31T12:00:00.000000Z"
    assert read_moment("2026-01-31T12:00:00.000001Z") == datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)
    for other in ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000+00:00", "2026-13-31T12:00:00.000000Z", 5, None):
        with pytest.raises(Malformed):
            read_moment(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "lease.forgotten"},
        {"at": "2026-01-31"},
        {"actor": 5},
        {"task": "t123"},
        {"lease": RECEIPT.task},
        {"body": []},
        {"extra": 1},
    ],
)
def test_what_cannot_be_read_is_not_passed_over(changed: dict[str, Any]) -> None:
    """An auditor hears of every key that isn't understood."""
    with pytest.raises(Malformed):
        Receipt.from_json({**RECEIPT.to_json(), **changed})


def test_a_missing_key_is_no_null() -> None:
    """Every key is always there."""
    value = RECEIPT.to_json()
    del value["lease"]
    with pytest.raises(Malformed, match="no other and no fewer"):
        Receipt.from_json(value)
