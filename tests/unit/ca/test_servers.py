"""Several servers over one store: each signs with its own keys, and with none that peers were not told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from ca import store
from ca.authority import Authority
from ca.authority.ring import NameTaken
from ca.errors import Conflict, Malformed, NotFound, Stale, Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.profiles.prepared import Kind
from ca.rotation import ABANDONED, MIGRATIONS, Event, Rotation, open_authority, step
from ca.runtime.database import Database, Duplicate, Transaction, migrate
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import LIVE, State
from fakes.authority import BEGIN, leaf, settings
from fakes.clock import ManualClock
from fakes.stores import DRIVERS

SECOND = timedelta(seconds=1)
WAIT = settings().propagation


@pytest.fixture(params=DRIVERS)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sequence[Database]]:
    """The one store as two servers have it: on PostgreSQL each by connections of its own."""
    opener = DRIVERS[request.param]
    async with opener(tmp_path) as one:
        if request.param == "sqlite":
            yield one, one
            return
        async with opener(tmp_path) as two:
            yield one, two


@pytest.fixture
def database(stores: Sequence[Database]) -> Database:
    """The first server's."""
    return stores[0]


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


def roots(authority: Authority) -> Sequence[Certificate]:
    """What it tells peers."""
    return authority.bundle(BEGIN).x509_authorities


@pytest.mark.clause("FED-1")
async def test_the_first_begins_at_once_and_the_second_waits(database: Database, stores: Sequence[Database]) -> None:
    """It is in the bundle of both before it signs, and signs when the first has shown it for long enough."""
    clock = ManualClock(BEGIN)
    async with server(database, "one") as one, server(stores[1], "two", clock=clock) as two:
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


async def test_one_that_does_not_say_so_is_waited_for(database: Database, stores: Sequence[Database]) -> None:
    """As long as it may live: up to `patience`, and no longer."""
    async with server(database, "one"), server(stores[1], "two") as two:
        second, patience = Rotation(two), two.settings.patience
        await second.tick(BEGIN + patience - SECOND)
        assert not two.signs(BEGIN + patience - SECOND)
        await second.tick(BEGIN + patience)
        assert two.signs(BEGIN + patience)


async def test_one_that_fell_silent_is_not_waited_for(database: Database, stores: Sequence[Database]) -> None:
    """It was heard of once, and not for a minute."""
    async with server(database, "one") as one:
        await database.write(partial(store.heard, server="one", generation=one.ring.generation, now=BEGIN))
        later = BEGIN + LIVE + SECOND
        async with server(stores[1], "two", later) as two:
            await Rotation(two).tick(later + WAIT)
            assert two.signs(later + WAIT)


async def test_neither_moves_the_others_authorities(database: Database, stores: Sequence[Database]) -> None:
    """A month of one server's ticks leaves the other's where they are, and the keys with them."""
    async with server(database, "one") as one, server(stores[1], "two") as two:
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


async def test_an_operators_word_at_one_reaches_the_other(database: Database, stores: Sequence[Database]) -> None:
    """The other signs nothing from the moment of the commit, and says so after its next look."""
    async with server(database, "one") as one, server(stores[1], "two") as two:
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


async def test_what_a_lost_server_left_is_retired_when_it_has_expired(
    database: Database, stores: Sequence[Database]
) -> None:
    """By another; until then its leaves verify."""
    async with server(database, "one") as one:
        lost = one.ring.own
    async with server(stores[1], "two") as two:
        last = max(each.not_after for each in lost if each.kind is not Kind.ROOT)
        await Rotation(two).tick(last + ABANDONED)
        kept = {each.key_id for each in two.ring.authorities if each.server == "one"}
        assert kept == {each.key_id for each in lost if each.kind is Kind.ROOT}


async def test_a_server_that_is_gone_for_good_is_forgotten(database: Database, stores: Sequence[Database]) -> None:
    """An operator says so at another: what it signed is believed until it has expired, and its root not for years."""
    async with server(database, "one") as one:
        chain = await one.sign_x509(leaf(one, BEGIN))
    async with server(stores[1], "two") as two:
        rotation, now = Rotation(two), BEGIN + LIVE + SECOND
        assert {each.after for each in await rotation.forget("one", now, dry_run=True)} == {State.OLD}
        await rotation.forget("one", now)
        x509svid.verify(chain, BundleSet.of(two.bundle(now)), BEGIN)
        for _ in range(2):
            await rotation.tick(BEGIN + timedelta(days=31))
        assert {each.server for each in two.believed} == {"two"}
        for name, words in (("one", "nothing of a server `one`"), ("two", "is alive")):
            with pytest.raises((NotFound, Conflict), match=words):
                await rotation.forget(name, now)


async def test_whoever_takes_a_name_last_has_it(database: Database, stores: Sequence[Database]) -> None:
    """The other process ends at its next look, and makes no key in between."""
    async with server(database, "one") as first, server(stores[1], "one"):
        before = first.generation
        with pytest.raises(NameTaken, match="give each server over a store its own `name`") as caught:
            await Rotation(first).tick(BEGIN)
        assert not caught.value.retryable
        with pytest.raises(NameTaken):
            await Rotation(first).replace(Kind.JWT, BEGIN)
        assert first.generation == before


async def test_a_server_that_lives_is_not_forgotten(database: Database, stores: Sequence[Database]) -> None:
    """It says so itself, at each of its ticks."""
    async with server(database, "one") as one, server(stores[1], "two") as two:
        await Rotation(one).tick(BEGIN + SECOND)
        active = one.ring.active(Kind.JWT)
        assert active is not None
        with pytest.raises(Conflict, match="alive"):
            await Rotation(two).forget("one", BEGIN)
        with pytest.raises(Conflict, match="alive"):
            await Rotation(two).taint(active.key_id, BEGIN)


async def test_the_keys_of_a_server_that_was_taken_over_are_tainted_elsewhere(
    database: Database, stores: Sequence[Database]
) -> None:
    """It does not answer, so what signs there is given up and tainted at once; it comes back and can't sign."""
    keys = MemoryKeyStore()
    chosen = settings(server="one")
    async with open_authority(chosen, database, keys, ManualClock(BEGIN)) as one:
        root = one.ring.active(Kind.ROOT)
        prepared = leaf(one, BEGIN)
        assert root is not None
        async with server(stores[1], "two") as two:
            moves = await Rotation(two).taint(root.key_id, BEGIN)
            assert {each.after for each in moves} == {State.OLD, State.TAINTED}
            await Rotation(two).revoke(root.key_id, BEGIN)
            assert root.certificate not in [
                each.public_bytes(Encoding.DER) for each in two.bundle(BEGIN).x509_authorities
            ]
        with pytest.raises(Stale):
            await one.sign_x509(prepared)


async def test_a_key_in_the_making_is_its_own_servers(database: Database, stores: Sequence[Database]) -> None:
    """Another one that starts meanwhile leaves it alone."""
    async with server(database, "one"):
        await database.write(partial(store.intend_key, server="one", key_name="jwt-new"))
        async with server(stores[1], "two"):
            assert list(await database.read(partial(store.intended_keys, server="one"))) == ["jwt-new"]


async def test_the_store_allows_each_server_one_of_a_kind(database: Database, stores: Sequence[Database]) -> None:
    """And no second."""
    async with server(database, "one") as one, server(stores[1], "two"):
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

    async def fill(tx: Transaction) -> None:
        rows = "INSERT INTO ca_authorities VALUES ($2, $3, 'active', $4, $5, $1, $1, 0, 1, 1, 1, NULL)"
        await tx.execute(rows, b"k", "aa", "root", "root-1", None)
        await tx.execute(rows, b"k", "bb", "issuing", "issuing-1", "aa")
        await tx.execute("INSERT INTO ca_key_intents VALUES ('jwt-1')")

    await database.write(fill)
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


async def test_two_that_begin_at_the_same_time_are_a_first_and_a_second(
    database: Database, stores: Sequence[Database]
) -> None:
    """Whoever commits first begins at once; the other one's keys are told of before they sign."""
    async with AsyncExitStack() as stack:
        opening = (
            stack.enter_async_context(server(each, name)) for each, name in zip(stores, ("one", "two"), strict=True)
        )
        both = await asyncio.gather(*opening)
        assert [each.signs(BEGIN) for each in both].count(True) == 1
        for each in both:
            await each.reload(BEGIN)
        assert len({each.bundle(BEGIN).to_jwks() for each in both}) == 1


async def test_words_at_both_at_the_same_time_lose_nothing(database: Database, stores: Sequence[Database]) -> None:
    """Ten rotations at each: every change is counted once, and both show the same bundle."""
    async with server(database, "one") as one, server(stores[1], "two") as two:
        rotations = Rotation(one), Rotation(two)

        async def often(rotation: Rotation) -> None:
            for _ in range(10):
                await rotation.replace(Kind.JWT, BEGIN)

        before = (await one.reload(BEGIN), one.generation)[1]
        await asyncio.gather(*map(often, rotations))
        for each in (one, two):
            await each.reload(BEGIN)
        assert one.bundle(BEGIN).to_jwks() == two.bundle(BEGIN).to_jwks()
        assert len(one.bundle(BEGIN).jwt_authorities) == 2 + 20 - 1  # the second server's first was still to begin
        assert one.generation == two.generation == before + 2 * 20 - 1
