"""A receipt: one line of the audit, one decision or one outcome.

Receipts of one writer form a hash chain (`broker/audit/chain.py`); what gives access is recorded durably before it is
given, what ends access is recorded with or after it (law 3). A receipt holds no secret and no verifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from broker.model.ids import LeaseId, TaskId, parse_lease, parse_task
from ca.errors import Malformed


class ReceiptKind(StrEnum):
    """What is recorded."""

    TASK_OPENED = "task.opened"
    TASK_CHANGED = "task.changed"
    TASK_ENDED = "task.ended"
    KILLED = "tasks.killed"  # an operator asked for it; each task that ended by it has a receipt of its own
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
    DISOWN_PROPOSED = "disown.proposed"
    DISOWNED = "disown.confirmed"  # by a second operator; what it is about was not verified to have ended
    TARGET_ADOPTED = "target.adopted"
    FOUND_UNKNOWN = "target.unknown_principal"
    OPERATOR_CHANGED = "operator.changed"
    VALUE_CHANGED = "value.changed"
    AUDIT_CUT = "audit.cut"  # the beginning of a chain was forgotten: its last entry, from which the rest verifies
    TARGET_ROTATED = "target.rotated"
    BROKER_STARTED = "broker.started"  # the first of its writer's chain: names the ends of those before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What happened, to what, because of whom; `body` holds JSON values only."""

    kind: ReceiptKind
    at: datetime
    actor: str
    task: TaskId | None = None
    lease: LeaseId | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form that is hashed, stored and exported; every key is always there."""
        return {
            "kind": str(self.kind),
            "at": written(self.at),
            "actor": self.actor,
            "task": self.task,
            "lease": self.lease,
            "body": dict(self.body),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Receipt:
        """The inverse of `to_json`.

        Raises:
            Malformed: a key is missing, unknown or not of its kind. An auditor must not pass over what it can't read.
        """
        if set(value) != _KEYS:
            raise Malformed(f"a receipt has the keys `{'`, `'.join(sorted(_KEYS))}`, no other and no fewer")
        if not isinstance(value["actor"], str) or not isinstance(value["body"], Mapping):
            raise Malformed("a receipt's `actor` is a text and its `body` an object")
        return cls(
            kind=_kind(value["kind"]),
            at=read_moment(value["at"]),
            actor=value["actor"],
            task=None if value["task"] is None else parse_task(str(value["task"])),
            lease=None if value["lease"] is None else parse_lease(str(value["lease"])),
            body=value["body"],
        )


_KEYS = frozenset({"kind", "at", "actor", "task", "lease", "body"})
_WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def written(moment: datetime) -> str:
    """A moment in the one spelling that is hashed: UTC, six digits, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def read_moment(text: object) -> datetime:
    """The inverse of `written`, and of nothing else. Raises Malformed."""
    if not isinstance(text, str) or not _WRITTEN.fullmatch(text):
        raise Malformed("a receipt's moment is written `2026-01-31T12:00:00.000000Z`")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"there is no such moment as `{text}`") from error


def _kind(text: object) -> ReceiptKind:
    try:
        return ReceiptKind(str(text))
    except ValueError as error:
        raise Malformed(f"unknown kind of receipt `{str(text)[:60]}`") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A receipt in its chain: `hash` = SHA-256 over (writer, number, previous hash, canonical receipt), in hex."""

    writer: str
    number: int
    previous: str
    hash: str
    receipt: Receipt
