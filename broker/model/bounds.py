"""How many calls to one target go at once: each kind has places of its own, none can hold back the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Grants and endings at once, and how many endings a second while the backlog of an outage is drained."""

    grants: int = 8
    endings: int = 4
    rate: float = 100.0
