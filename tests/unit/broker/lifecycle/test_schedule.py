"""When something is due: each rule at its boundary."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.engines.protocol import Making
from broker.errors import OutcomeUnknown
from broker.lifecycle.schedule import (
    Course,
    backoff,
    longest_until,
    may_still_appear_until,
    next_due,
    refuse_late,
    with_deadline,
)
from broker.model.lease import Lease
from fakes.clock import ManualClock
from fakes.nouns import NOW, lease, task
from fakes.world import living, role

MINUTE = timedelta(minutes=1)
MOMENT = timedelta(microseconds=1)


def making(deadline: datetime, **changed: object) -> Lease:
    """A lease that is being made until `deadline`."""
    made = lease(task(), activated_at=None)
    return replace(made, handle=replace(made.handle, facts=with_deadline(deadline)), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(0, 0.25), (1, 0.5), (2, 1), (3, 2), (7, 32), (8, 60), (9, 60), (10, 60), (1_000_000, 60)],
)
def test_tries_come_later_each_time_and_a_minute_apart_in_the_end(attempts: int, seconds: float) -> None:
    """However many there were."""
    assert backoff(attempts).total_seconds() == seconds


def test_what_is_made_in_time_is_handed_over_and_not_a_moment_later() -> None:
    """The deadline itself is in time; what has none is never late."""
    refuse_late(making(NOW), NOW)
    refuse_late(lease(task()), NOW + timedelta(days=1))
    with pytest.raises(OutcomeUnknown):
        refuse_late(making(NOW), NOW + MOMENT)


def test_a_create_may_still_appear_for_as_long_as_it_may_be_under_way() -> None:
    """A second past its deadline where the target judges it, a minute where it does not; never once it was answered."""
    doubted = making(NOW)
    assert may_still_appear_until(doubted) == NOW + timedelta(seconds=1)
    assert may_still_appear_until(doubted, Making.CREATE_ONLY) == NOW + timedelta(seconds=1)
    assert may_still_appear_until(doubted, Making.UPSERT) == NOW + MINUTE
    assert may_still_appear_until(making(NOW, activated_at=NOW)) is None
    assert may_still_appear_until(lease(task(), activated_at=None)) is None


async def test_a_course_goes_on_from_where_it_began() -> None:
    """Whatever the wall clock says meanwhile."""
    clock = ManualClock()
    course = Course.of(clock, NOW)
    assert course.now == NOW
    await clock.advance(7)
    clock.step_wall(timedelta(hours=1))
    assert course.now == NOW + timedelta(seconds=7)


async def test_when_an_active_lease_is_looked_at(tmp_path: Path) -> None:
    """At half of its window, by when it must be acknowledged, or at its end where nothing moves it."""
    the_role = role(ttl=10 * MINUTE)
    async with living(tmp_path, the_role=the_role) as house:
        world = house.world
        fresh = lease(task(), role=the_role.full_name, until=NOW + 10 * MINUTE, ack_by=NOW + MINUTE)
        heard = replace(fresh, acknowledged_at=NOW)
        assert next_due(world, fresh) == NOW + MINUTE
        assert next_due(world, replace(fresh, ack_by=NOW + 6 * MINUTE)) == NOW + 5 * MINUTE
        assert next_due(world, heard) == NOW + 5 * MINUTE
        assert next_due(world, replace(heard, last=heard.until)) == heard.until
        assert next_due(world, replace(heard, last=heard.until + MOMENT)) == NOW + 5 * MINUTE
        assert next_due(world, replace(heard, role="gone/away")) == heard.until
        assert next_due(world, replace(fresh, role="gone/away")) == NOW + MINUTE


async def test_how_far_an_end_is_moved(tmp_path: Path) -> None:
    """One window ahead, never past the last moment, never backwards, not at all without its role."""
    the_role = role(ttl=10 * MINUTE)
    async with living(tmp_path, the_role=the_role) as house:
        world = house.world
        held = lease(task(), role=the_role.full_name, until=NOW + 10 * MINUTE, last=NOW + 60 * MINUTE)
        assert longest_until(world, held, NOW + 5 * MINUTE) == NOW + 15 * MINUTE
        assert longest_until(world, held, NOW + 55 * MINUTE) == NOW + 60 * MINUTE
        assert longest_until(world, held, NOW - MINUTE) == held.until
        assert longest_until(world, replace(held, role="gone/away"), NOW + 5 * MINUTE) == held.until
