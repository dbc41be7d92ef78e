"""When an endpoint is asked next, and which of two bundles is the newer one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from attestor.server.federation.follower import newer, pause
from fakes.pki import TestAuthority

THEIRS = TestAuthority("partner.test")


@pytest.mark.parametrize(
    ("hint", "failures", "seconds"),
    [
        (None, 0, 300),
        (1, 0, 60),
        (600, 0, 600),
        (400 * 86400 // 2, 0, 86400),
        (60, 1, 60),
        (60, 3, 240),
        (60, 99, 3600),
    ],
)
@pytest.mark.clause("FED-3")
def test_the_refresh_hint_within_bounds(hint: int | None, failures: int, seconds: int) -> None:
    """A minute to a day, five minutes without one; twice as long after each failure, up to an hour."""
    bundle = THEIRS.bundle(refresh_hint=None if hint is None else timedelta(seconds=hint))
    assert pause(bundle, failures) == timedelta(seconds=seconds)


def test_the_first_bundle_is_wanted_soon() -> None:
    """Seconds, and never longer than five minutes."""
    assert [pause(None, failures).total_seconds() for failures in (1, 2, 3, 50)] == [5, 10, 20, 300]


@pytest.mark.clause("FED-4")
def test_the_sequence_says_which_is_newer() -> None:
    """A lower one is older; without a number what comes later is newer."""
    assert newer(THEIRS.bundle(sequence=5), THEIRS.bundle(sequence=6))
    assert newer(THEIRS.bundle(sequence=5), THEIRS.bundle(sequence=5))
    assert newer(THEIRS.bundle(sequence=5), THEIRS.bundle(sequence=None))
    assert not newer(THEIRS.bundle(sequence=5), THEIRS.bundle(sequence=4))
