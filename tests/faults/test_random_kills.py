"""Kills at random: a load drawn by chance, a broker that dies anywhere in it, and the next one that goes on from there.

`make faults N=…` plays the same for as long as one likes and keeps the record (`record.jsonl`); here nothing is kept.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from faults.ground import GROUNDS, Ground
from faults.nursery import Nursery
from faults.record import LONGEST, OK, Kill
from faults.worlds import World
from servers.postgres import Room, Server

WORLDS = {"postgres": 6, "static": 4, "mysql": 5, "redis": 5, "rabbitmq": 2}
"""Of two dozen lives each: more than 500 in all, and twelve times as many when everything is asked for."""


@pytest.fixture(params=sorted(GROUNDS))
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Ground]]:
    """One kind of target."""
    async with GROUNDS[request.param]() as found:
        yield request.param, found


async def test_killed_anywhere(nursery: Nursery, ground: tuple[str, Ground], stage: tuple[Server, Room]) -> None:
    """Nothing leaked, nothing is lost; a world that fails says its seed."""
    kind, place = ground
    worlds = WORLDS[kind] * (12 if "FAULTS_ALL" in os.environ else 1)
    seed, tally, kills = secrets.randbits(31), Counter[str](), list[Kill]()
    for number, shared in zip(range(worlds), itertools.cycle((None, stage[0])), strict=False):
        world = World(nursery, place, shared, kind, seed + number, tally)
        await world.run(1000, kills.extend)
        assert (seed + number, world.faults) == (seed + number, [])
    assert {kill.verdict for kill in kills} == {OK}
    assert len(kills) >= 20 * worlds


async def test_a_broken_promise_is_seen(nursery: Nursery) -> None:
    """A world in which the oracle sees a ghost stops there, and says so of whoever died last."""
    async with GROUNDS["postgres"]() as place:
        eyes = place.eyes
        seeing = eyes.principals

        async def ghost(prefix: str) -> dict[str, bool]:
            return {**await seeing(prefix), "sj_nobody00_ghost": True}

        eyes.principals = ghost  # type: ignore[method-assign]
        world, kills = World(nursery, place, None, "postgres", 1, Counter()), list[Kill]()
        await world.run(1000, kills.extend)
    assert "the role sj_nobody00_ghost is there" in world.faults[0]
    assert {kill.verdict == OK for kill in kills} == {False}
    assert len(kills) <= 2


def test_a_line_is_short() -> None:
    """However much is to be said, a line is one, and can be read."""
    kill = Kill(2**31, 24, "0123456+", "postgres", "postgres", "withdraw.cut_unrecorded.before", "the password of " * 9)
    assert len(kill.line()) == LONGEST
    assert kill.line().endswith('"}\n')
