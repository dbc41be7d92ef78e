"""For how long the broker remembers what is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Events and receipts count from when they were written, tasks from when nothing of them was left.

    A tree of tasks goes as a whole, with its leases and the requests they answered. What is still needed stays: no
    receipt goes that is younger than the oldest task of which something is left.
    """

    events: timedelta = timedelta(days=7)
    tasks: timedelta = timedelta(days=30)
    receipts: timedelta = timedelta(days=400)


LEAST = Retention(events=timedelta(hours=1), tasks=timedelta(days=7), receipts=timedelta(days=30))
"""What no operator may go below: a point that was away for an hour goes on, a restart knows which processes ended."""
