"""Which brokers live: by counters that move, and by what was really looked at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from broker.loops.claims import BEAT, GRACE, Claims
from broker.store import brokers
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")


async def looks(house: House, claims: Claims, times: int, alive: Iterable[str] = (), every: float = BEAT) -> None:
    """So many ticks, between which those that are `alive` beat."""
    for _ in range(times):
        for broker in alive:
            await house.world.database.write(lambda tx, broker=broker: brokers.beat(tx, broker))  # type: ignore[misc]
        await claims.tick(house.world)
        await house.clock.advance(every)


async def there(house: House) -> set[str]:
    """Who has a counter."""
    return set(await house.world.database.read(brokers.counters))


async def test_a_broker_is_dead_when_its_counter_stands_still(tmp_path: Path) -> None:
    """By our own boot time, and not before; one that goes on counting is left alone; the dead are buried."""
    async with living(tmp_path) as house:
        claims, us = Claims(exclusive=False, patience=10), house.world.broker
        await looks(house, claims, 10, ["dead", "alive"])
        await looks(house, claims, 9, ["alive"])
        assert await claims.dead(house.world, ["dead", "alive", us]) == frozenset()
        await looks(house, claims, 2, ["alive"])
        assert await claims.dead(house.world, ["dead", "alive", us]) == {"dead"}
        assert await there(house) == {"alive", us}
        await looks(house, claims, 3, ["alive"])
        assert await claims.dead(house.world, ["dead", "alive"]) == {"dead"}


async def test_one_that_was_thawed_is_alive_again(tmp_path: Path) -> None:
    """It beats, and a buried one that beats has a counter again."""
    async with living(tmp_path) as house:
        claims = Claims(exclusive=False, patience=5)
        await looks(house, claims, 2, ["frozen"])
        await looks(house, claims, 8)
        assert await claims.dead(house.world, ["frozen"]) == {"frozen"}
        await looks(house, claims, 1, ["frozen"])
        assert await claims.dead(house.world, ["frozen"]) == frozenset()


async def test_who_was_frozen_itself_has_not_seen_the_others_stand_still(tmp_path: Path) -> None:
    """A minute between two looks counts as little more than one beat: nobody could be seen meanwhile."""
    async with living(tmp_path) as house:
        claims = Claims(exclusive=False, patience=10)
        await looks(house, claims, 3, ["other"])
        await looks(house, claims, 3, every=600)
        assert await claims.dead(house.world, ["other"]) == frozenset()


async def test_one_that_never_beat_is_dead_after_as_long(tmp_path: Path) -> None:
    """Its intents may be there before its counter is: a broker that has just started beats first, but who knows."""
    async with living(tmp_path) as house:
        claims = Claims(exclusive=False, patience=5)
        assert await claims.dead(house.world, ["unheard-of"]) == frozenset()
        await looks(house, claims, 4)
        assert await claims.dead(house.world, ["unheard-of"]) == frozenset()
        await looks(house, claims, 3)
        assert await claims.dead(house.world, ["unheard-of"]) == {"unheard-of"}


async def test_who_holds_the_store_alone_waits_for_nobody(tmp_path: Path) -> None:
    """Every other broker is of the past, and nothing is written."""
    async with living(tmp_path) as house:
        claims = Claims()
        await claims.tick(house.world)
        assert await claims.dead(house.world, ["any", house.world.broker]) == {"any"}
        assert await there(house) == set()
        assert claims.others_until(house.clock.now()) == house.clock.now()
        assert Claims(exclusive=False).others_until(house.clock.now()) == house.clock.now() - GRACE


async def test_one_that_stops_in_order_is_not_waited_for(tmp_path: Path) -> None:
    """It has nothing under way, and takes its counter with it."""
    async with living(tmp_path) as house:
        claims = Claims(exclusive=False)
        await looks(house, claims, 1, ["other"])
        await claims.leave(house.world)
        assert await there(house) == {"other"}
