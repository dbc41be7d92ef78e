"""Values over the operators' socket: put, told of, destroyed; never shown, and refused to whoever may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.client.broker import Broker
from broker.engines.protocol import Lent
from broker.engines.static import Static
from broker.model.receipt import ReceiptKind
from broker.store.sealed import Sealed
from broker.wire.values import LONGEST, PutValue
from ca.errors import Denied, Malformed, NotFound, Unavailable
from ca.runtime.secret import Secret
from fakes.doors import Doors, doors
from fakes.lent_account import SEAL

MARK = "hunter2-hunter2-hunter2"


def with_shelf(house: Doors) -> Sealed:
    """A target of kind `static` beside the other."""
    world = house.house.world
    vault = Sealed(world.database, SEAL, world.clock)
    world.engines["shelf"] = Static(Lent(clock=world.clock, vault=vault))  # type: ignore[index]
    return vault


def value(text: str = MARK) -> PutValue:
    """A body."""
    return PutValue.model_validate({"value": text})


async def test_a_value_is_put_told_of_and_destroyed(tmp_path: Path) -> None:
    """Each with a receipt that holds no value; no answer holds one either."""
    async with doors(tmp_path, seal=SEAL) as house, house.as_operator() as broker:
        vault = with_shelf(house)
        assert [(await broker.put_value("shelf/key", value(text))).version for text in ("one", MARK)] == [1, 2]
        assert await vault.read("value/shelf/key") == Secret(MARK)
        told = await broker.value_versions("shelf/key")
        assert MARK not in told.model_dump_json()
        assert [(one.version, one.key) for one in told.versions] == [(2, SEAL.key_name), (1, SEAL.key_name)]
        await broker.destroy_value("shelf/key", 2)
        assert await vault.read("value/shelf/key") == Secret("one")
        entries = [entry.receipt for entry in await house.house.receipts()]
        bodies = [one.body for one in entries if one.kind is ReceiptKind.VALUE_CHANGED]
        assert [min(body.items()) for body in bodies] == [("put", 1), ("put", 2), ("destroyed", 2)]
        assert MARK not in repr(entries)


@pytest.mark.parametrize("name", ["orders-db/key", "nowhere/key", "shelf/other"])
async def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    """No such target, no target that holds values, no such value."""
    async with doors(tmp_path, seal=SEAL) as house, house.as_operator() as broker:
        with_shelf(house)
        with pytest.raises(NotFound):
            await broker.value_versions(name)
        with pytest.raises(NotFound):
            await broker.destroy_value(name, 1)


@pytest.mark.parametrize("name", ["shelf/..", "shelf/Key", "shelf/" + "k" * 60, "shelf/%00"])
async def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is written."""
    async with doors(tmp_path, seal=SEAL) as house, house.as_operator() as broker:
        with_shelf(house)
        with pytest.raises((Malformed, NotFound)):
            await broker.put_value(name, value())


@pytest.mark.parametrize("text", ["", "a\x00b", "x" * (LONGEST + 1)])
def test_a_bad_value_is_refused(text: str) -> None:
    """And not repeated."""
    with pytest.raises(ValueError) as refused:
        value(text)
    assert "x" * 20 not in str(refused.value)


async def test_an_agent_may_not(tmp_path: Path) -> None:
    """Whatever its policies say: values are the operators'."""
    async with doors(tmp_path, seal=SEAL) as house, house.as_agent() as broker:
        vault = with_shelf(house)
        await vault.write("value/shelf/key", Secret(MARK))
        for call in (_put, _told, _destroyed):
            with pytest.raises(Denied):
                await call(broker)
        assert await vault.read("value/shelf/key") == Secret(MARK)


async def _put(broker: Broker) -> None:
    await broker.put_value("shelf/key", value())


async def _told(broker: Broker) -> None:
    await broker.value_versions("shelf/key")


async def _destroyed(broker: Broker) -> None:
    await broker.destroy_value("shelf/key", 1)


async def test_without_a_seal_nothing_is_put(tmp_path: Path) -> None:
    """Said with the setting that is missing."""
    async with doors(tmp_path) as house, house.as_operator() as broker:
        with_shelf(house)
        with pytest.raises(Unavailable, match=r"keys\.seal"):
            await broker.put_value("shelf/key", value())
