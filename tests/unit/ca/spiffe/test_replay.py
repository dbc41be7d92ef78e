"""A thing is good once, and nothing is forgotten while it is good."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Exhausted
from ca.spiffe.errors import Untrusted
from ca.spiffe.replay import SHARE, ReplayCache, Replayed
from fakes.pki import NOON

MINUTE = timedelta(minutes=1)


def test_the_second_time_is_refused_until_it_has_expired() -> None:
    """And of another sender it is another thing."""
    cache = ReplayCache()
    cache.admit("a", "1", NOON + MINUTE, NOON)
    for now in (NOON, NOON + MINUTE - timedelta(seconds=1)):
        with pytest.raises(Replayed, match="a second time") as caught:
            cache.admit("a", "1", NOON + MINUTE, now)
    assert isinstance(caught.value, Untrusted)
    assert caught.value.code == "replayed"
    cache.admit("b", "1", NOON + MINUTE, NOON)
    cache.admit("a", "2", NOON + MINUTE, NOON)


def test_what_has_expired_takes_no_room() -> None:
    """However much there was."""
    cache = ReplayCache()
    for count in range(100):
        cache.admit("a", str(count), NOON + MINUTE, NOON)
    assert len(cache) == 100
    cache.admit("a", "x", NOON + 3 * MINUTE, NOON + MINUTE)
    assert len(cache) == 1


def test_a_clock_set_back_makes_nothing_good_again() -> None:
    """What was forgotten is refused when its time comes a second time; what ends later is not touched by that."""
    cache = ReplayCache()
    cache.admit("a", "1", NOON + MINUTE, NOON)
    cache.admit("a", "2", NOON + 3 * MINUTE, NOON + 2 * MINUTE)
    with pytest.raises(Replayed):
        cache.admit("a", "1", NOON + MINUTE, NOON)
    cache.admit("a", "3", NOON + 2 * MINUTE, NOON)


def test_a_full_cache_refuses_the_new_and_forgets_nothing() -> None:
    """First whoever holds more than a share; so the others keep room."""
    cache = ReplayCache(most=2 * SHARE)
    for count in range(2):
        cache.admit("greedy", str(count), NOON + MINUTE, NOON)
    with pytest.raises(Exhausted, match="`greedy` has shown too many"):
        cache.admit("greedy", "2", NOON + MINUTE, NOON)
    for count in range(2 * SHARE - 2):
        cache.admit(f"other {count}", "0", NOON + MINUTE, NOON)
    with pytest.raises(Exhausted, match="too many proofs have been shown"):
        cache.admit("late", "0", NOON + MINUTE, NOON)
    with pytest.raises(Replayed):
        cache.admit("greedy", "0", NOON + MINUTE, NOON)
    cache.admit("greedy", "0", NOON + 3 * MINUTE, NOON + 2 * MINUTE)


_TIMES = st.integers(-60, 60).map(lambda seconds: NOON + timedelta(seconds=seconds))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), _TIMES, _TIMES), max_size=40))
def test_nothing_is_ever_admitted_twice_while_it_is_good(calls: list[tuple[str, str, object, object]]) -> None:
    """Whatever the clock does."""
    cache, admitted = ReplayCache(), set()
    for sender, thing, until, now in calls:
        if until <= now:  # type: ignore[operator]  # whoever calls has looked at the expiry first
            continue
        try:
            cache.admit(sender, f"{thing} {until}", until, now)  # type: ignore[arg-type]
        except Replayed:
            continue
        assert (sender, thing, until) not in admitted
        admitted.add((sender, thing, until))
