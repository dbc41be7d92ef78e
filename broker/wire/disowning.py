"""Bodies of …/disown: what can't be verified to have ended is given up by two operators."""

from __future__ import annotations

from broker.wire.body import Asked, Moment, Told


class Disown(Asked):
    """Give up unverified: proposed by one operator, then by another with `confirm`."""

    confirm: bool = False


class DisownTold(Told):
    """How it stands: `proposed_by` whom, `until` when a second one can confirm; or `done`, for how many leases."""

    what: str
    proposed_by: str | None = None
    until: Moment | None = None
    leases: int
    done: bool
