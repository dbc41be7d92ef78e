"""What an operator hears of a target: whose it is, what waits for a look, what its owner installs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from broker.engines.protocol import Finding
from broker.errors import NotPossible
from broker.lifecycle import configured, reconcile
from broker.model.role import Role
from broker.store import installation
from ca.errors import NotFound
from fakes.clock import ManualClock
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living

TARGET = "orders-db"
WELL = Finding(name="login", well=True, detail="a probe logged in")


class Checked(FakeEngine):
    """An engine that can prove that its target is set up right."""

    asked: tuple[Sequence[Role], str] | None = None

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        self.asked = (roles, prefix)
        return [WELL]


@pytest.fixture
def engine() -> Checked:
    """Of a target of our own."""
    return Checked(FakeTarget(ManualClock()))


async def checked(house: House) -> dict[str, Finding]:
    """What is found, by name."""
    return {one.name: one for one in await configured.check(house.world, TARGET)}


async def test_ours_is_tried_with_its_own_roles(tmp_path: Path, engine: Checked) -> None:
    """The claim is said first; the engine hears of the roles at this target alone, and of the prefix."""
    async with living(tmp_path, engine=engine) as house:
        house.world.roles["other/readonly"] = replace(house.role, target="other")  # type: ignore[index]
        found = await configured.check(house.world, TARGET)
        assert [(one.name, one.well) for one in found] == [("claim", True), ("login", True)]
        assert found[0].detail == "it is this installation's"
        assert engine.asked == ([house.role], house.world.prefix)


async def test_nothing_is_tried_where_somebody_else_works(tmp_path: Path, engine: Checked) -> None:
    """Another installation's claim is the only finding, with its two ways out."""
    await engine.claim("another", "life")
    async with living(tmp_path, engine=engine) as house:
        (found,) = (await checked(house)).values()
        assert (found.name, found.well, engine.asked) == ("claim", False, None)
        assert found.detail
        assert found.fix == (
            "use a target of its own, or have its owner remove the claim if that installation is no more"
        )


async def test_a_target_that_does_not_answer_is_left_to_the_engine_to_describe(tmp_path: Path, engine: Checked) -> None:
    """Its own check says what stands in the way."""
    engine.fail("claim")
    async with living(tmp_path, engine=engine) as house:
        assert await checked(house) == {"login": WELL}


async def test_one_that_can_not_be_tried_has_its_claim_only(tmp_path: Path) -> None:
    """An engine without a check."""
    async with living(tmp_path) as house:
        assert list(await checked(house)) == ["claim"]


async def test_what_waits_for_a_look_is_said_with_the_command(tmp_path: Path, engine: Checked) -> None:
    """After a restore: since when, and what to type; after that no more."""
    async with living(tmp_path, engine=engine) as house:
        now = house.clock.now()
        await house.world.database.write(lambda tx: installation.begin_incarnation(tx, now))
    async with living(tmp_path, engine=engine, clock=engine.target.clock) as house:
        found = await checked(house)
        assert list(found) == ["claim", "quarantine", "login"]
        assert not found["quarantine"].well
        assert found["quarantine"].fix == "sojourn target adopt orders-db"
        assert found["quarantine"].detail == (
            f"the store was restored or promoted at {now:%Y-%m-%d %H:%M} UTC: nothing unknown is destroyed here"
        )
        await reconcile.adopt(house.world, TARGET, "an operator", house.clock.now())
        assert list(await checked(house)) == ["claim", "login"]
        assert engine.target.claim is not None
        assert engine.target.claim.incarnation == house.world.installation.incarnation


async def test_what_its_owner_installs(tmp_path: Path, engine: Checked) -> None:
    """The engine's own words, where it signs."""
    engine.fixed = True
    async with living(tmp_path, engine=engine) as house:
        assert await configured.authority(house.world, TARGET) == await engine.authority()


async def test_nothing_is_signed_where_nobody_believes_it(tmp_path: Path) -> None:
    """Said with the kind."""
    async with living(tmp_path) as house:
        house.world.engines[TARGET] = object.__new__(Unsigning)  # type: ignore[index]
        with pytest.raises(NotPossible, match=r"`orders-db`: its kind `plain` knows no certificates"):
            await configured.authority(house.world, TARGET)


class Unsigning:
    """An engine that signs nothing."""

    kind = "plain"


@pytest.mark.parametrize("ask", [configured.check, configured.authority])
async def test_there_is_no_such_target(tmp_path: Path, ask: object) -> None:
    """Named as it was asked for, and no longer than a name is."""
    async with living(tmp_path) as house:
        with pytest.raises(NotFound, match=f"there is no target `{'x' * 60}`$"):
            await ask(house.world, "x" * 61)  # type: ignore[operator]
