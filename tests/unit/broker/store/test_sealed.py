"""Sealed values: what comes back, and every copied, changed or foreign envelope that doesn't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest

from broker.store import sealed
from broker.store.keys import KeysInStore
from broker.store.sealed import Sealed, open_sealed
from ca.errors import NotFound
from ca.keys.protocol import KeyUnusable, Purpose
from ca.runtime.database import Database, Row, Transaction, migrate
from ca.runtime.secret import Secret
from ca.seal import AesSeal, SealBroken, SealRing, sealed_by
from fakes.clock import ManualClock
from fakes.stores import chosen, on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

FIRST, SECOND = AesSeal(bytes(range(32))), AesSeal(bytes(range(1, 33)))
CLOCK = ManualClock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A store with the broker's tables."""
    async with chosen(tmp_path / "store.db") as opened:
        await migrate(opened, "broker", files("broker.migrations"))
        yield opened


@pytest.fixture
def vault(database: Database) -> Sealed:
    """The vault under the first key."""
    return Sealed(database, FIRST, CLOCK)


async def revealed(vault: Sealed, name: str) -> str | None:
    """The value as text."""
    found = await vault.read(name)
    return None if found is None else found.reveal()


async def rows(database: Database) -> list[Row]:
    """What rests."""

    async def unit(tx: Transaction) -> list[Row]:
        return list(await tx.fetch("SELECT * FROM sealed ORDER BY name, version"))

    return await database.read(unit)


async def change(database: Database, sql: str, *args: str | int) -> None:
    """What somebody does who can write the store."""
    await database.write(lambda tx: tx.execute(sql, *args))


async def test_the_newest_version_is_read(vault: Sealed) -> None:
    """Numbers count up; what was never written is None; another name is another value."""
    assert await vault.read("a") is None
    assert [await vault.write("a", Secret("hunter-1")), await vault.write("a", Secret("hunter-2"))] == [1, 2]
    assert await vault.write("b", Secret("übrig")) == 1
    assert (await revealed(vault, "a"), await revealed(vault, "b")) == ("hunter-2", "übrig")


async def test_no_value_rests_in_clear_text(vault: Sealed, database: Database) -> None:
    """Nor is it in what is printed of the vault or a version."""
    await vault.write("a", Secret("hunter-1"))
    (row,) = await rows(database)
    assert b"hunter" not in bytes(row["envelope"])
    assert "hunter" not in repr((vault, await database.read(lambda tx: sealed.versions(tx, "a"))))


async def test_an_envelope_opens_only_where_it_was_made(vault: Sealed, database: Database) -> None:
    """Copied under another name, or over a newer version, or changed by one bit, it is refused."""
    await vault.write("a", Secret("one"))
    await vault.write("a", Secret("two"))
    await change(database, "INSERT INTO sealed SELECT 'b', version, envelope, made_at, destroyed_at FROM sealed")
    with pytest.raises(SealBroken, match="`b`, version 2"):
        await vault.read("b")
    await change(
        database,
        "UPDATE sealed SET envelope = (SELECT envelope FROM sealed WHERE name = $1 AND version = 1) WHERE version = 2",
        "a",
    )
    with pytest.raises(SealBroken) as broken:
        await vault.read("a")
    assert "one" not in str(broken.value)


async def test_a_destroyed_version_is_gone_and_its_number_with_it(vault: Sealed, database: Database) -> None:
    """The one before it is the newest again; twice is once; what never was is said."""
    for value in ("one", "two"):
        await vault.write("a", Secret(value))
    for _ in range(2):
        await database.write(lambda tx: sealed.destroy(tx, "a", 2, CLOCK.now()))
    assert await revealed(vault, "a") == "one"
    assert await vault.write("a", Secret("three")) == 3
    told = await database.read(lambda tx: sealed.versions(tx, "a"))
    assert [(one.number, one.destroyed_at is None, one.key_name) for one in told] == [
        (3, True, FIRST.key_name), (2, False, None), (1, True, FIRST.key_name),
    ]  # fmt: skip
    with pytest.raises(NotFound):
        await database.write(lambda tx: sealed.destroy(tx, "a", 4, CLOCK.now()))


async def test_what_is_forgotten_is_gone(vault: Sealed, database: Database) -> None:
    """Every version; others stay."""
    await vault.write("static/a", Secret("one"))
    await vault.write("static_a", Secret("two"))
    await vault.forget("static_a")
    assert [row["name"] for row in await rows(database)] == ["static/a"]
    assert await database.read(lambda tx: sealed.names(tx, "static/")) == ["static/a"]


async def test_another_key_takes_over(vault: Sealed, database: Database) -> None:
    """Opened with the former key at hand everything is sealed anew; then the former is of no use."""
    await vault.write("a", Secret("one"))
    await vault.write("a", Secret("two"))
    with pytest.raises(SealBroken, match=FIRST.key_name):
        await Sealed(database, SECOND, CLOCK).read("a")
    await open_sealed(database, SealRing(SECOND, FIRST), CLOCK)
    assert {sealed_by(bytes(row["envelope"])) for row in await rows(database)} == {SECOND.key_name}
    assert await revealed(Sealed(database, SECOND, CLOCK), "a") == "two"
    with pytest.raises(SealBroken):
        await vault.read("a")


async def test_a_value_of_a_lost_key_holds_up_no_other(vault: Sealed, database: Database) -> None:
    """It stays as it is, and is refused to whoever asks for it."""
    await Sealed(database, AesSeal(bytes(32)), CLOCK).write("lost", Secret("one"))
    await vault.write("a", Secret("two"))
    opened = await open_sealed(database, SealRing(SECOND, FIRST), CLOCK)
    assert await revealed(opened, "a") == "two"
    with pytest.raises(SealBroken, match="`lost`"):
        await opened.read("lost")


async def test_many_values_are_sealed_anew_batch_by_batch(database: Database) -> None:
    """All of them, whatever their number."""
    old = Sealed(database, FIRST, CLOCK)
    now = CLOCK.now()

    async def fill(tx: Transaction) -> None:
        for number in range(1203):
            await sealed.add(tx, FIRST, f"v-{number // 2}", Secret(str(number)), now)

    await database.write(fill)
    assert await revealed(old, "v-601") == "1202"
    await open_sealed(database, SealRing(SECOND, FIRST), CLOCK)
    assert {sealed_by(bytes(row["envelope"])) for row in await rows(database)} == {SECOND.key_name}
    assert await revealed(Sealed(database, SECOND, CLOCK), "v-3") == "7"


async def test_of_two_brokers_one_makes_a_key(database: Database) -> None:
    """Both have it afterwards; a copy of the store without the sealing key has none."""
    first, second = KeysInStore(database, FIRST, CLOCK), KeysInStore(database, FIRST, CLOCK)
    made = await asyncio.gather(
        *(one.create("ssh-hosts", Purpose.SSH_CA) for one in (first, second)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["InMemoryKey", "KeyExists"]
    loaded = [await one.load("ssh-hosts", Purpose.SSH_CA) for one in (first, second)]
    assert len({one.key_id for one in loaded}) == 1
    with pytest.raises(KeyUnusable, match=FIRST.key_name):
        await KeysInStore(database, SECOND, CLOCK).load("ssh-hosts", Purpose.SSH_CA)
    assert b"PRIVATE" not in bytes((await rows(database))[0]["envelope"])


@pytest.mark.parametrize(
    "content", ["", "{}", '{"purpose": "ssh-ca", "key": "AAAA"}', '{"purpose": "ssh-ca", "key": "*"}']
)
async def test_a_damaged_key_is_refused(database: Database, content: str) -> None:
    """And nothing of it is told."""
    await Sealed(database, FIRST, CLOCK).write("key/ssh-hosts", Secret(content))
    with pytest.raises(KeyUnusable, match="damaged") as refused:
        await KeysInStore(database, FIRST, CLOCK).load("ssh-hosts", Purpose.SSH_CA)
    assert refused.value.__cause__ is None
