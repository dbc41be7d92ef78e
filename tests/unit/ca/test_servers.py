"""Several servers over one store: each signs with its own keys, and with none that peers were not told of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from ca import store
from ca.authority import Authority
from ca.errors import Malformed, Stale, Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.profiles.prepared import Kind
from ca.rotation import ABANDONED, MIGRATIONS, Event, Rotation, open_authority, step
from ca.runtime.database import Database, Duplicate, migrate
from ca.runtime.sql import statements
from ca.runtime.sqlite import open_sqlite
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import LIVE, State
from fakes.authority import BEGIN, leaf, settings
from fakes.clock import ManualClock

SECOND = timedelta(seconds=1)
WAIT = settings().propagation


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """The one store."""
    async with open_sqlite(tmp_path / "ca.db") as database:
        yield database


@asynccontextmanager
async def server(
    database: Database, name: str, now: datetime = BEGIN, clock: ManualClock | None = None
) -> AsyncIterator[Authority]:
    """A server that starts at `now`, with a key store of its own."""
    clock = clock or ManualClock(now)
    async with open_authority(settings(server=name), database, MemoryKeyStore(), clock) as authority:
        yield authority


def states(authority: Authority) -> set[tuple[Kind, State]]:
    """Of its own authorities."""
    return {(each.kind, each.state) for each in authority.ring.own}


async def test_the_first_begins_at_once_and_the_second_waits(database: Database) -> None:
    """It is in the bundle of both before it signs, and signs when the first has shown it for long enough."""
    clock = ManualClock(BEGIN)
    async with server(database, "one") as one, server(database, "two", clock=clock) as two:
        assert one.signs(BEGIN)
        assert states(two) == {(kind, State.PREPARED) for kind in (Kind.ROOT, Kind.JWT, Kind.WIT)}
        first, second = Rotation(one), Rotation(two)
        now = BEGIN + 5 * SECOND
        await first.tick(now)  # hears of it, and says so
        assert one.bundle(now).x509_der() == two.bundle(now).x509_der()
        assert len(one.bundle(now).x509_authorities) == 2
        await second.tick(now + WAIT - SECOND)
        assert not two.signs(now + WAIT - SECOND)
        told = one.bundle(now)
        await clock.advance((now + WAIT - BEGIN).total_seconds())
        await second.tick(now + WAIT)
        chain = await two.sign_x509(leaf(two, now + WAIT))
        x509svid.verify(chain, BundleSet.of(told), now + WAIT)


async def test_one_that_does_not_say_so_is_waited_for(database: Database) -> None:
    """As long as it may live: up to `patience`, and no longer."""
    async with server(database, "one"), server(database, "two") as two:
        second, patience = Rotation(two), two.settings.patience
        await second.tick(BEGIN + patience - SECOND)
        assert not two.signs(BEGIN + patience - SECOND)
        await second.tick(BEGIN + patience)
        assert two.signs(BEGIN + patience)


async def test_one_that_fell_silent_is_not_waited_for(database: Database) -> None:
    """It was heard of once, and not for a minute."""
    async with server(database, "one") as one:
        await database.write(partial(store.heard, server="one", generation=one.ring.generation, now=BEGIN))
        later = BEGIN + LIVE + SECOND
        async with server(database, "two", later) as two:
            await Rotation(two).tick(later + WAIT)
            assert two.signs(later + WAIT)


async def test_neither_moves_the_others_authorities(database: Database) -> None:
    """A month of one server's ticks leaves the other's where they are, and the keys with them."""
    async with server(database, "one") as one, server(database, "two") as two:
        await Rotation(one).tick(BEGIN + SECOND)
        await Rotation(two).tick(BEGIN + SECOND + WAIT)
        before = two.ring.own
        for day in range(1, 25):
            await Rotation(one).tick(BEGIN + timedelta(days=day))
        await two.reload(BEGIN)
        assert two.ring.own == before
        assert {each.server for each in one.ring.own} == {"one"}
        assert not any(one.ring.has_key(each) for each in before)
        assert all(two.ring.has_key(each) for each in before)


async def test_an_operators_word_at_one_reaches_the_other(database: Database) -> None:
    """The other signs nothing from the moment of the commit, and says so after its next look."""
    async with server(database, "one") as one, server(database, "two") as two:
        active = one.ring.active(Kind.ISSUING)
        assert active is not None
        prepared = leaf(one, BEGIN)
        await two.reload(BEGIN)
        await two.ring.move([step(active, Event.GIVE_UP)], BEGIN)
        heard: list[None] = []
        one.subscribe(lambda: heard.append(None))
        with pytest.raises(Stale):
            await one.sign_x509(prepared)
        assert heard == [None]
        with pytest.raises(Unavailable):
            one.issuer(BEGIN)
        assert await one.reload(BEGIN) is False


async def test_what_a_lost_server_left_is_retired_when_it_has_expired(database: Database) -> None:
    """By another; until then its leaves verify."""
    async with server(database, "one") as one:
        lost = one.ring.own
    async with server(database, "two") as two:
        last = max(each.not_after for each in lost if each.kind is not Kind.ROOT)
        await Rotation(two).tick(last + ABANDONED)
        kept = {each.key_id for each in two.ring.authorities if each.server == "one"}
        assert kept == {each.key_id for each in lost if each.kind is Kind.ROOT}


async def test_a_key_in_the_making_is_its_own_servers(database: Database) -> None:
    """Another one that starts meanwhile leaves it alone."""
    async with server(database, "one"):
        await database.write(partial(store.intend_key, server="one", key_name="jwt-new"))
        async with server(database, "two"):
            assert list(await database.read(partial(store.intended_keys, server="one"))) == ["jwt-new"]


async def test_the_store_allows_each_server_one_of_a_kind(database: Database) -> None:
    """And no second."""
    async with server(database, "one") as one, server(database, "two"):
        root = one.ring.active(Kind.ROOT)
        assert root is not None
        second = replace(root, key_id=b"\x07" * 20, key_name="root-2")
        with pytest.raises(Duplicate):
            await database.write(partial(store.insert, authority=second, now=BEGIN))


async def test_who_is_alone_leaves_the_disk_in_peace(database: Database) -> None:
    """Only with others there is somebody to tell."""
    async with server(database, "one") as one:
        await Rotation(one).tick(BEGIN + SECOND)
        assert not await database.read(partial(store.is_live, server="one", now=BEGIN))


async def test_the_tables_of_the_first_version_are_taken_along(database: Database, tmp_path: Path) -> None:
    """Its authorities are those of the server that is alone."""
    (tmp_path / "first").mkdir()
    first = min(MIGRATIONS.glob("*.sql"))
    (tmp_path / "first" / first.name).write_bytes(first.read_bytes())
    await migrate(database, "ca", tmp_path / "first")
    for statement in statements(
        "INSERT INTO ca_authorities VALUES ('aa', 'root', 'active', 'root-1', NULL, 'k', 'c', 0, 1, 1, 1, NULL);"
        "INSERT INTO ca_authorities VALUES ('bb', 'issuing', 'active', 'issuing-1', 'aa', 'k', 'c', 0, 1, 1, 1, NULL);"
        "INSERT INTO ca_key_intents VALUES ('jwt-1');"
    ):
        await database.write(lambda tx, sql=statement: tx.execute(sql))  # type: ignore[misc]
    await migrate(database, "ca", MIGRATIONS)
    found = await database.read(store.trusted)
    assert [(each.kind, each.server, each.forced) for each in found] == [
        (Kind.ROOT, "main", False),
        (Kind.ISSUING, "main", False),
    ]
    assert list(await database.read(partial(store.intended_keys, server="main"))) == ["jwt-1"]


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 64, "a\n"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    """It stands in the store and in messages."""
    with pytest.raises(Malformed, match="`server`"):
        settings(server=name)
