"""A receipt: one line of the audit, one decision or one outcome.

Receipts of one writer form a hash chain (`broker/audit/chain.py`); what gives access is recorded durably before it is
given, what ends access is recorded with or after it (law 3). A receipt holds no secret and no verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.model.ids import LeaseId, TaskId


class ReceiptKind(StrEnum):
    """What is recorded."""

    TASK_OPENED = "task.opened"
    TASK_CHANGED = "task.changed"
    TASK_ENDED = "task.ended"
    DECIDED = "decided"
    LEASE_INTENDED = "lease.intended"
    LEASE_ACTIVATED = "lease.activated"
    LEASE_REISSUED = "lease.reissued"
    LEASE_ACKNOWLEDGED = "lease.acknowledged"
    LEASE_RENEWED = "lease.renewed"
    LEASE_IN_DOUBT = "lease.in_doubt"
    LEASE_REVOKING = "lease.revoking"
    LEASE_ACCESS_ENDED = "lease.access_ended"
    LEASE_CLOSED = "lease.closed"
    FOUND_UNKNOWN = "target.unknown_principal"
    OPERATOR_CHANGED = "operator.changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What happened, to what, because of whom; `body` holds JSON values only."""

    kind: ReceiptKind
    at: datetime
    actor: str
    task: TaskId | None = None
    lease: LeaseId | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A receipt in its chain: `hash` = SHA-256 over (writer, number, previous hash, canonical receipt), in hex."""

    writer: str
    number: int
    previous: str
    hash: str
    receipt: Receipt
