"""How often somebody may ask."""

from __future__ import annotations

import pytest

from ca.errors import Exhausted
from ca.runtime.rate import Rate, network_of
from fakes.clock import ManualClock


def tries(rate: Rate, key: object, number: int) -> int:
    """How many of so many tries are let through."""
    through = 0
    for _ in range(number):
        try:
            rate.take(key)
        except Exhausted:
            continue
        through += 1
    return through


async def test_a_burst_and_then_a_trickle() -> None:
    """Each for itself."""
    clock = ManualClock()
    rate = Rate(clock, burst=3, per_second=2.0)
    assert (tries(rate, "a", 10), tries(rate, "b", 10)) == (3, 3)
    await clock.advance(1)
    assert tries(rate, "a", 10) == 2
    await clock.advance(0.25)
    assert tries(rate, "a", 10) == 0, "a refused try is not a reason to wait longer, and half a try is none"
    await clock.advance(0.25)
    assert tries(rate, "a", 10) == 1
    await clock.advance(3600)
    assert tries(rate, "a", 10) == 3


async def test_too_many_strangers_share_what_is_left() -> None:
    """The memory is bounded, whoever comes; who waited long enough makes room."""
    clock = ManualClock()
    rate = Rate(clock, burst=2, per_second=1.0, most=3)
    assert [tries(rate, number, 2) for number in range(10)] == [2, 2, 2, 2, 0, 0, 0, 0, 0, 0]
    with pytest.raises(Exhausted):
        rate.take(0)
    await clock.advance(2)
    assert tries(rate, "new", 5) == 2


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_as_much_as_one_host_can_have(address: str | None, network: str | None) -> None:
    """So that nobody has 2^64 buckets."""
    assert network_of(address) == network
