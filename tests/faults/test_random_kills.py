"""Kills at random: a load drawn by chance, a broker that dies anywhere in it, and the next one that goes on from there.

`make faults N=…` plays the same for as long as one likes and keeps the record (`record.jsonl`); here nothing is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from faults.ground import GROUNDS, Ground
from faults.nursery import Nursery
from faults.record import LONGEST, OK, Kill
from faults.worlds import Tally, World
from house.failpoints import all_points
from servers.postgres import Room, Server

WORLDS = {
    "postgres": 6, "static": 4, "mysql": 4, "redis": 5, "rabbitmq": 2, "ssh": 2, "kubernetes": 1, "oauth": 1, "aws": 1,
}  # fmt: skip
"""Of two dozen lives each: more than 500 in all, and twelve times as many when everything is asked for."""

FEWER = {"kubernetes": 10, "oauth": 10, "aws": 10}
"""Kills after which a world is left: everything there is said over TLS, and a life is longer."""

MANY = 12 if "FAULTS_ALL" in os.environ else 1
STORES = itertools.cycle(("sqlite", "postgres"))
TURNS = [
    pytest.param(kind, store, id=f"{kind}-{store}-{number}")
    for kind, worlds in WORLDS.items()
    for number, store in zip(range(worlds * MANY), STORES, strict=False)
]
TALLY: Tally = Counter()


@dataclass
class Grounds:
    """One of each kind for all worlds of this file, opened when it is first asked for."""

    runner: asyncio.Runner
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    opened: dict[str, Ground] = field(default_factory=dict)

    def at(self, kind: str) -> Ground:
        if kind not in self.opened:
            self.opened[kind] = self.runner.run(self.stack.enter_async_context(GROUNDS[kind]()))
        return self.opened[kind]


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    """They live outside of any test's loop."""
    with asyncio.Runner() as runner:
        found = Grounds(runner)
        yield found
        runner.run(found.stack.aclose())


@pytest.fixture
def ground(grounds: Grounds, kind: str) -> Ground:
    """That of one kind."""
    return grounds.at(kind)


@pytest.mark.parametrize(("kind", "store"), TURNS)
async def test_killed_anywhere(
    nursery: Nursery, ground: Ground, stage: tuple[Server, Room], kind: str, store: str
) -> None:
    """Nothing leaked, nothing is lost; a world that fails says its seed."""
    kills = list[Kill]()
    world = World(nursery, ground, stage[0] if store == "postgres" else None, kind, secrets.randbits(31), TALLY)
    most = 1000 if MANY > 1 else FEWER.get(kind, 1000)
    await world.run(most, kills.extend)
    await ground.eyes.close()
    assert (world.seed, world.faults) == (world.seed, [])
    assert {kill.verdict for kill in kills} == {OK}
    assert len(kills) >= min(18, most)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_broken_promise_is_seen(nursery: Nursery, ground: Ground) -> None:
    """A world in which the oracle sees a ghost stops there, and says so of whoever died last."""
    eyes = ground.eyes
    seeing = eyes.principals

    async def ghost(prefix: str) -> dict[str, bool]:
        return {**(await seeing(prefix) or {}), "sj_nobody00_ghost": True}

    eyes.principals = ghost  # type: ignore[method-assign]
    world, kills = World(nursery, ground, None, "postgres", 1, Counter()), list[Kill]()
    await world.run(1000, kills.extend)
    await eyes.close()
    del eyes.principals
    assert "the role sj_nobody00_ghost is there" in world.faults[0]
    assert {kill.verdict == OK for kill in kills} == {False}
    assert len(kills) <= 2


def test_a_line_is_short() -> None:
    """However much is to be said, a line is one, and can be read."""
    kill = Kill(2**31, 24, "0123456+", "postgres", "postgres", "withdraw.cut_unrecorded.before", "the password of " * 9)
    assert len(kill.line()) == LONGEST
    assert kill.line().endswith('"}\n')
    longest = max(all_points(), key=len)
    assert Kill(2**31, 24, "0123456+", "postgres", "rabbitmq", longest).line().endswith('"v":"ok"}\n')
