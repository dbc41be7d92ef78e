"""Ages of what others write, by one's own clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ca.runtime.unchanged import Unchanged

START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_age_counts_from_the_first_look_and_begins_anew_with_each_value() -> None:
    """What the value itself says plays no part."""
    seen = Unchanged()
    assert seen.since("a", START - timedelta(days=9), START) == START
    assert seen.since("a", START - timedelta(days=9), START + SECOND) == START
    assert seen.since("a", START + timedelta(days=9), START + 2 * SECOND) == START + 2 * SECOND
    assert seen.since("b", None, START + 3 * SECOND) == START + 3 * SECOND


def test_what_this_process_wrote_counts_from_then() -> None:
    """Not from when it is read again."""
    seen = Unchanged()
    seen.note("a", 1, START)
    assert seen.since("a", 1, START + SECOND) == START


def test_what_is_gone_is_forgotten() -> None:
    """And is new when it comes back."""
    seen = Unchanged()
    seen.note("a", 1, START)
    seen.note("b", 1, START)
    seen.keep(["b", "c"])
    assert seen.since("a", 1, START + SECOND) == START + SECOND
    assert seen.since("b", 1, START + SECOND) == START
