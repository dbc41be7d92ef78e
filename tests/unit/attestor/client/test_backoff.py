"""Waiting longer each time, and not all together."""

from __future__ import annotations

import pytest

from attestor.client.backoff import Backoff, scattered
from fakes.clock import ManualClock


class Noting(ManualClock):
    """A clock on which every sleep is over at once, and written down."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_each_wait_is_twice_the_last_up_to_the_longest_and_success_begins_anew() -> None:
    """0.1 s first, five at most."""
    clock = Noting()
    backoff = Backoff(clock)
    for _ in range(8):
        await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1])


async def test_clients_of_one_server_are_scattered() -> None:
    """Each waits between a half and all of it, and a thousand of them not at the same moments."""
    clock = Noting()
    for _ in range(1000):
        await Backoff(clock, first=1.0, spread=scattered).wait()
    assert (min(clock.slept) >= 0.5, max(clock.slept) <= 1.0) == (True, True)
    assert len(set(clock.slept)) > 300
