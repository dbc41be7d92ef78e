"""How much may be outside at once, and how fast it may come to be; reached before anything is made.

A lease counts while something of it may be left at its target: in use, in doubt, or being ended. So a target that is
down and can't be cleaned up is given no more and more to clean up. A task's own identity does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Quota(StrEnum):
    """What is bounded; its name stands in the answer of whoever reached it."""

    LEASES_PER_IDENTITY = "leases-per-identity"
    LEASES_PER_TASK = "leases-per-task"
    LEASES_PER_TARGET = "leases-per-target"
    GRANTS_PER_MINUTE = "grants-per-minute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The bounds an operator set; None is no bound. Grants are counted for each SPIFFE ID and minute of the clock."""

    leases_per_identity: int | None = None
    leases_per_task: int | None = None
    leases_per_target: int | None = None
    grants_per_minute: int | None = None

    def bounds(self) -> Iterator[tuple[Quota, int]]:
        """Those that are set."""
        for quota in Quota:
            most = getattr(self, quota.replace("-", "_"))
            if most is not None:
                yield quota, most
