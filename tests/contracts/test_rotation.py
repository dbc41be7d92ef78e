"""Our own password rotated at every real target whose engine can: it goes on working, and the former opens nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.engines.passwords import new_password
from broker.engines.protocol import OwnAccount, Rotating
from broker.errors import NotPossible
from broker.lifecycle import rotate
from broker.model.lease import LeaseState
from broker.store import sealed
from ca.runtime.secret import Secret
from ca.seal import AesSeal
from fakes.world import House, living
from servers.place import Trait
from servers.places import PLACES, having

SEAL = AesSeal(bytes(32))


@pytest.fixture(params=having(Trait.ROTATES))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """One target; a Redis keeps passwords in its ACL file."""
    kept = {"aclfile": True} if PLACES[request.param].engine == "redis" else {}
    opener: Any = PLACES[request.param].open
    async with asyncio.timeout(100), opener(**kept) as found:
        yield found


async def ours(house: House, target: str) -> Secret:
    """The password in force."""
    mine = rotate.own(house.world, target)
    found = await house.world.database.read(lambda tx: sealed.newest(tx, SEAL, mine.current))
    assert found is not None
    return found[1]


async def test_what_is_held_meanwhile_ends_afterwards(place: Any, tmp_path: Path) -> None:
    """Twice, with a lease in use; each time the former password is dead, and what is asked of the target is done."""
    engine, target = place.engine, place.role.target
    assert all(isinstance(engine, power) for power in (Rotating, OwnAccount))
    async with living(tmp_path, clock=place.clock, engine=engine, the_role=place.role, seal=SEAL) as house:
        task = await house.open()
        held = await house.held(task)
        former: list[Secret] = []
        for times in (1, 2):
            assert await rotate.rotate(house.world, target, house.clock.now()) == times
            former.append(await ours(house, target))
        assert [await engine.opens(engine.account, one) for one in former] == [False, True]
        assert not await engine.opens(engine.account, Secret(new_password()))
        assert await place.login(held.issued) is not None
        again = await house.held(await house.open())
        await house.end(task)
        while (await house.lease(held.lease.id)).state is not LeaseState.REVOKED:
            await house.reap()
            await place.clock.sleep(0.05)
        assert await place.login(held.issued) is None
        assert await place.login(again.issued) is not None


async def test_a_change_that_died_before_its_record_is_adopted(place: Any, tmp_path: Path) -> None:
    """By a login, and not by another change."""
    engine, target = place.engine, place.role.target
    async with living(tmp_path, clock=place.clock, engine=engine, the_role=place.role, seal=SEAL) as house:
        mine, chosen, now = rotate.own(house.world, target), Secret(new_password()), house.clock.now()
        await house.world.database.write(lambda tx: sealed.add(tx, SEAL, mine.candidate, chosen, now))
        await engine.change_password(engine.account, chosen)
        assert await rotate.carry_on(house.world, target, now) == 1
        assert await ours(house, target) == chosen
        assert await place.login((await house.held(await house.open())).issued) is not None


async def test_what_is_refused_before_it_was_sent_is_given_up(tmp_path: Path) -> None:
    """A Redis that would forget the password at its next restart: nothing is pending, and nothing has changed."""
    opener: Any = PLACES["redis"].open
    async with (
        opener() as place,
        living(tmp_path, clock=place.clock, engine=place.engine, the_role=place.role, seal=SEAL) as house,
    ):
        mine = rotate.own(house.world, place.role.target)
        with pytest.raises(NotPossible, match="aclfile"):
            await rotate.rotate(house.world, place.role.target, house.clock.now())
        assert await house.world.database.read(lambda tx: sealed.newest(tx, SEAL, mine.candidate)) is None
        assert await rotate.carry_on(house.world, place.role.target, house.clock.now()) is None
        assert await place.login((await house.held(await house.open())).issued) is not None
