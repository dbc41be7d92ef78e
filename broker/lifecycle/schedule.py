"""When something is due for a lease: a renewal at half of its window; its end, unacknowledged or run out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.engines.protocol import Making
from broker.errors import OutcomeUnknown
from broker.lifecycle.world import World
from broker.model.ids import LeaseId
from broker.model.lease import Lease
from broker.store import endings
from ca.runtime.clock import Clock, instant, micros

CREATE_BY = "create_by"
"""The fact of a handle that says until when its create may still happen, in microseconds."""

_MARGIN = timedelta(seconds=1)
_KEPT = timedelta(seconds=60)
"""What the network and the target may keep of a call that was sent before its deadline, where the target does not judge
it by that deadline itself."""
_PAGE = 500
_FIRST, _LONGEST = timedelta(milliseconds=250), timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Course:
    """Time as it goes on from `start` while a use case runs: the one reading of the clock stays the caller's."""

    start: datetime
    boot: float
    clock: Clock

    @classmethod
    def of(cls, clock: Clock, now: datetime) -> Course:
        """From `now` on."""
        return cls(now, clock.boot(), clock)

    @property
    def now(self) -> datetime:
        """`start`, and what has passed since."""
        return self.start + timedelta(seconds=self.clock.boot() - self.boot)


def next_due(world: World, lease: Lease) -> datetime:
    """When an active lease must be looked at again."""
    role = world.roles.get(lease.role)
    renewable = role is not None and lease.until < lease.last
    moment = lease.until - role.ttl / 2 if role is not None and renewable else lease.until
    return moment if lease.acknowledged_at is not None else min(moment, lease.ack_by)


def longest_until(world: World, lease: Lease, now: datetime) -> datetime:
    """How far a renewal at `now` moves the end: one window ahead, never past the last moment, never backwards."""
    role = world.roles.get(lease.role)
    if role is None:
        return lease.until
    return max(lease.until, min(now + role.ttl, lease.last))


def may_still_appear_until(lease: Lease, making: Making = Making.CREATE_ONLY) -> datetime | None:
    """Until when a create that nobody heard of may still happen; None when it was answered or never had a chance.

    A target that refuses a taken name judges the deadline of a create by its own clock. Where a create is an upsert,
    what was sent in time may lie on the way for longer.
    """
    if lease.activated_at is not None or CREATE_BY not in lease.handle.facts:
        return None
    return _create_by(lease) + (_MARGIN if making is Making.CREATE_ONLY else _KEPT)


def refuse_late(lease: Lease, now: datetime) -> None:
    """What was made by a call that came back after its deadline is never handed over. Raises OutcomeUnknown.

    Whoever waited, in this process or another, has given it up by then: this process may have been frozen.
    """
    if CREATE_BY in lease.handle.facts and now > _create_by(lease):
        raise OutcomeUnknown("the secret was made too late to be handed over, and is destroyed; ask again")


def _create_by(lease: Lease) -> datetime:
    return instant(int(lease.handle.facts[CREATE_BY]))


def with_deadline(deadline: datetime) -> dict[str, int]:
    """The fact that keeps it."""
    return {CREATE_BY: micros(deadline)}


def backoff(attempts: int) -> timedelta:
    """How long after the n-th failure the next try comes; it never gives up."""
    return min(_LONGEST, _FIRST * (1 << min(attempts, 10)))


async def pages(world: World, target: str) -> AsyncIterator[Sequence[Lease]]:
    """The active leases of one target, a page at a time, so that no number of them needs memory."""
    after: tuple[datetime, LeaseId] | None = None
    while page := await world.database.read(lambda tx, at=after: endings.active_at(tx, target, at, _PAGE)):  # type: ignore[misc]
        after = page[-1].due_at, page[-1].id
        yield page
