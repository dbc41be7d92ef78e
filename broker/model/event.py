"""Events: what enforcement points, agents and operators are told, in one dense order.

An epoch is (incarnation, n). n has no gaps: it is taken from one counter row as the last statement of the transaction
it tells of, so commit order is number order and a gap is an error (DESIGN 5, traps 7). A new incarnation begins when
the store was restored or promoted; whoever holds a cursor of another one gets `resync` and a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.model.ids import LeaseId, TaskId
from ca.errors import Malformed


@dataclass(frozen=True, slots=True)
class Epoch:
    """The newest event: written `<incarnation>.<n>`."""

    incarnation: str
    n: int

    @classmethod
    def parse(cls, text: str) -> Epoch:
        """Read a cursor. Raises Malformed."""
        incarnation, dot, number = text.rpartition(".")
        if not dot or not incarnation.isalnum() or len(text) > 64 or not (number.isascii() and number.isdigit()):
            raise Malformed("not a cursor: expected `<incarnation>.<number>`")
        return cls(incarnation, int(number))

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.n}"


class EventKind(StrEnum):
    """What is told."""

    TASK_OPENED = "task.opened"
    TASK_CHANGED = "task.changed"
    TASK_ENDED = "task.ended"
    LEASE_ISSUED = "lease.issued"
    LEASE_RENEWED = "lease.renewed"
    LEASE_REVOKING = "lease.revoking"
    LEASE_ACCESS_ENDED = "lease.access_ended"
    LEASE_CLOSED = "lease.closed"
    TASK_CLOSED = "task.closed"
    UNREADABLE = "unreadable"  # the row of this number can't be read: look at what it may have been about


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; `epoch` is known once it is written. Readers see those of their own tree (`root`)."""

    kind: EventKind
    at: datetime
    task: TaskId
    root: TaskId
    lease: LeaseId | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    epoch: Epoch | None = None
