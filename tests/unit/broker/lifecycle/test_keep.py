"""While a target waits for an operator's look, what only our own memory says is over is kept, and renewed in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.lifecycle.attend import attend
from broker.model.lease import Lease, LeaseState
from fakes.world import House, living, role

TTL = timedelta(minutes=2)
LATER = timedelta(seconds=15)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Leases of two minutes, forty seconds to acknowledge."""
    async with living(tmp_path, the_role=role(ttl=TTL, ack_within=timedelta(seconds=40))) as found:
        yield found


async def kept(house: House, lease: Lease) -> Lease:
    """Attended to in quarantine, and still in use."""
    await attend(house.world, lease, house.clock.now(), quarantined=True)
    found = await house.lease(lease.id)
    assert found.state is LeaseState.ACTIVE
    return found


async def test_one_that_was_not_received_is_looked_at_again(house: House) -> None:
    """It may have been; half of its window has not passed, so it is not renewed."""
    lease = (await house.obtain(await house.open())).lease
    await house.clock.advance(59.999)
    found = await kept(house, lease)
    assert (found.until, found.due_at) == (lease.until, house.clock.now() + LATER)


@pytest.mark.parametrize("seconds", [60, 61, 119, 121])
async def test_from_half_of_its_window_on_it_is_renewed(house: House, seconds: float) -> None:
    """Whether it has run out by what we remember or not."""
    lease = (await house.obtain(await house.open())).lease
    await house.clock.advance(seconds)
    assert (await kept(house, lease)).until == house.clock.now() + TTL


async def test_one_that_can_not_be_renewed_further_is_let_be(house: House) -> None:
    """Its last moment is its end already."""
    lease = (await house.obtain(await house.open(), ttl=TTL)).lease
    assert lease.until == lease.last
    await house.clock.advance(100)
    found = await kept(house, lease)
    assert (found.until, found.due_at) == (lease.until, house.clock.now() + LATER)


async def test_nor_is_one_whose_role_is_gone(house: House) -> None:
    """Nobody says how far."""
    lease = (await house.obtain(await house.open())).lease
    house.world.roles.clear()  # type: ignore[attr-defined]
    await house.clock.advance(100)
    found = await kept(house, lease)
    assert (found.until, found.due_at) == (lease.until, house.clock.now() + LATER)


async def test_past_its_last_moment_it_ends(house: House) -> None:
    """No store can have forgotten that."""
    lease = (await house.obtain(await house.open(), ttl=TTL)).lease
    await house.clock.advance(120)
    await attend(house.world, lease, house.clock.now(), quarantined=True)
    assert (await house.lease(lease.id)).state is LeaseState.REVOKED
