"""An engine's power to change passwords, lent: looked up anew at each call, never held up by grants, never its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import NotPossible
from broker.lifecycle.borrowed import Borrowed
from ca.errors import NotFound
from ca.runtime.secret import Secret
from fakes.filling import Filling, only_endings
from fakes.lent_account import shelf
from fakes.world import living


async def test_it_goes_through_the_target_it_is_for_and_as_an_ending(tmp_path: Path) -> None:
    """What must be given back finds room although grants take every place."""
    async with shelf(tmp_path, wrap=Filling) as there:
        only_endings(there.house)
        world = there.house.world
        lent = Borrowed(world.engines, world.targets, "orders-db")
        await lent.change_password("legacy", Secret("a new one"))
        assert await lent.opens("legacy", Secret("a new one"))
        assert not await lent.opens("legacy", Secret("old-password"))
        session = there.accounts.log_in("legacy", "a new one")
        assert session is not None
        assert await lent.cut_sessions("legacy") == 1
        with pytest.raises(NotPossible):
            await lent.change_password("root", Secret("ours"))


@pytest.mark.parametrize("what", ["engines", "targets"])
async def test_a_target_that_is_gone_or_can_not_is_said(tmp_path: Path, what: str) -> None:
    """Neither is asked anything."""
    async with living(tmp_path) as house:
        world = house.world
        with pytest.raises(NotPossible):
            await Borrowed(world.engines, world.targets, "orders-db").cut_sessions("legacy")
        gone = Borrowed(
            {} if what == "engines" else world.engines, {} if what == "targets" else world.targets, "orders-db"
        )
        with pytest.raises(NotFound):
            await gone.opens("legacy", Secret("x"))
        assert house.engine.calls == []
