"""Revocation lists of a real authority over a real store: what enters one, when, under which number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca import store
from ca.authority import Authority
from ca.errors import Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.profiles.crl import Entry
from ca.profiles.prepared import Kind, Prepared
from ca.revocation import PAUSE, TIDY, Lists
from ca.rotation import Rotation, open_authority
from ca.runtime.database import Database, StoreFull, Transaction, Unit
from ca.runtime.sqlite import open_sqlite
from ca.spiffe.revocation_list import RevocationList
from ca.store import Issued, State
from ca.store.revoked import GRACE
from fakes.authority import BEGIN, INSTANCE, WatchedKeyStore, leaf, opened, settings
from fakes.clock import ManualClock

OTHER = "f" * 32


@pytest.fixture
def clock() -> ManualClock:
    """Stands at the beginning."""
    return ManualClock(BEGIN)


@pytest.fixture
async def authority(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Authority]:
    """One that can sign."""
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        yield authority


async def issue(authority: Authority, clock: ManualClock, instance: str = INSTANCE, **changes: object) -> Prepared:
    """A leaf that was handed out."""
    prepared = leaf(authority, clock.now(), instance=instance, **changes)
    await authority.sign_x509(prepared)
    return prepared


async def take_back(authority: Authority, clock: ManualClock, *instances: str) -> int:
    """Every leaf of these instances."""
    now = clock.now()
    return await authority.ring.database.write(
        partial(store.revoke_leaves_of, instances=instances, alive_at=now, reason="over", now=now), ending=True
    )


async def go_to(clock: ManualClock, moment: datetime) -> None:
    """Let time pass until then."""
    await clock.advance((moment - clock.now()).total_seconds())


def of(lists: Lists, authority: Authority, kind: Kind) -> RevocationList:
    """The newest list of the active authority of that kind, as a reader reads it."""
    active = authority.ring.active(kind)
    assert active is not None
    (der,) = [one.der for one in lists.current if one.issuer_key_id == active.key_id]
    assert active.certificate is not None
    found = RevocationList.parse(der)
    assert found.signed_by(x509.load_der_x509_certificate(active.certificate))
    return found


async def test_every_authority_has_an_empty_list_for_its_whole_life(authority: Authority, clock: ManualClock) -> None:
    """Root and issuing alike, and nothing of it depends on this server living on (traps 15)."""
    lists = Lists(authority)
    await lists.tick(clock.now())
    assert len(lists.ders) == 2
    for kind in (Kind.ROOT, Kind.ISSUING):
        found, active = of(lists, authority, kind), authority.ring.active(kind)
        assert active is not None
        assert not found.serials
        assert found.next_update == active.not_after
        assert found.this_update <= clock.now()


async def test_one_that_will_sign_has_its_list_before_it_signs(authority: Authority, clock: ManualClock) -> None:
    """So that no peer meets a chain whose authority has none."""
    lists = Lists(authority)
    await go_to(clock, authority.issuer(clock.now()).not_after - settings().ca_ttl / 3)
    await Rotation(authority).tick(clock.now())
    await lists.tick(clock.now())
    prepared = authority.ring.prepared(Kind.ISSUING)
    assert prepared is not None
    assert prepared.key_id in {one.issuer_key_id for one in lists.current}


async def test_what_was_taken_back_is_named_and_nothing_else(authority: Authority, clock: ManualClock) -> None:
    """By the list of its issuer; the root's stays empty."""
    lists = Lists(authority)
    gone, stays = await issue(authority, clock), await issue(authority, clock, OTHER)
    assert await take_back(authority, clock, INSTANCE) == 1
    await lists.tick(clock.now())
    assert of(lists, authority, Kind.ISSUING).serials == frozenset({gone.serial})
    assert not of(lists, authority, Kind.ROOT).serials
    assert stays.serial not in of(lists, authority, Kind.ISSUING).serials


async def test_taking_back_twice_is_once(authority: Authority, clock: ManualClock) -> None:
    """The second time changes nothing, and makes no list."""
    lists = Lists(authority)
    await issue(authority, clock)
    assert await take_back(authority, clock, INSTANCE) == 1
    await lists.tick(clock.now())
    before = lists.ders
    assert await take_back(authority, clock, INSTANCE) == 0
    await clock.advance(60)
    await lists.tick(clock.now())
    assert lists.ders == before


async def test_however_many_ends_there_is_one_list_in_a_pause(authority: Authority, clock: ManualClock) -> None:
    """And the last of them is named when the pause is over."""
    lists, numbers, named = Lists(authority), set[int](), set[int]()
    await lists.tick(clock.now())
    for n in range(20):
        instance = f"{n:032x}"
        named.add((await issue(authority, clock, instance)).serial)
        await take_back(authority, clock, instance)
        await lists.tick(clock.now())
        numbers.add(of(lists, authority, Kind.ISSUING).number)
        await clock.advance(PAUSE.total_seconds() / 10)
    assert len(numbers) <= 3
    await clock.advance(PAUSE.total_seconds())
    await lists.tick(clock.now())
    assert of(lists, authority, Kind.ISSUING).serials == frozenset(named)


async def test_the_first_end_does_not_wait(authority: Authority, clock: ManualClock) -> None:
    """A leaf revoked by command is on a list with the next tick, also right after the start."""
    lists = Lists(authority)
    await lists.tick(clock.now())
    gone = await issue(authority, clock)
    await take_back(authority, clock, INSTANCE)
    await lists.tick(clock.now())
    assert gone.serial in of(lists, authority, Kind.ISSUING).serials


async def test_numbers_rise_also_when_the_clock_goes_back(authority: Authority, clock: ManualClock) -> None:
    """And over a restart: a new process goes on above what is kept."""
    numbers = []
    for n, jump in enumerate((0, -3600, 3600, -7200)):
        lists = Lists(authority)
        await issue(authority, clock, f"{n:032x}")
        await take_back(authority, clock, f"{n:032x}")
        await lists.tick(clock.now() + timedelta(seconds=jump))
        numbers.append(of(lists, authority, Kind.ISSUING).number)
    assert numbers == sorted(set(numbers))
    assert numbers[0] == int(BEGIN.timestamp())  # so that a restored store does not go back


async def test_an_expired_entry_leaves_the_list(authority: Authority, clock: ManualClock) -> None:
    """When it has expired for peers with a slow clock as well, and not with a list of its own each."""
    lists = Lists(authority)
    gone = await issue(authority, clock)
    await take_back(authority, clock, INSTANCE)
    await lists.tick(clock.now())
    await go_to(clock, gone.not_after + timedelta(seconds=1))
    await lists.tick(clock.now())
    assert gone.serial in of(lists, authority, Kind.ISSUING).serials
    await go_to(clock, gone.not_after + GRACE + TIDY)
    await lists.tick(clock.now())
    assert not of(lists, authority, Kind.ISSUING).serials
    assert await authority.ring.database.read(store.count_revoked) == 0


async def test_killed_between_the_end_and_the_list(authority: Authority, clock: ManualClock) -> None:
    """Whatever was killed in between, the next tick of the next process signs it."""
    await Lists(authority).tick(clock.now())
    gone = await issue(authority, clock)
    await take_back(authority, clock, INSTANCE)
    issuer = authority.issuer(clock.now()).key_id

    async def claimed(tx: Transaction) -> Sequence[object]:
        above = (await store.numbers(tx))[issuer]
        return await store.claim_entries(tx, issuer, above=above, number=above + 5, most=9, now=clock.now())

    assert len(await authority.ring.database.write(claimed)) == 1  # and here it was killed, before the list was kept
    lists = Lists(authority)
    await lists.tick(clock.now())
    assert gone.serial in of(lists, authority, Kind.ISSUING).serials


async def test_a_list_that_was_overtaken_is_not_kept(authority: Authority, clock: ManualClock) -> None:
    """Of two that were signed at once the higher number stays."""
    lists = Lists(authority)
    await lists.tick(clock.now())
    one = lists.current[0]
    keep = authority.ring.database.write
    assert not await keep(partial(store.keep, one=replace(one, number=one.number, der=b"other")))
    assert not await keep(partial(store.keep, one=replace(one, number=one.number - 1, der=b"older")))
    assert await keep(partial(store.keep, one=replace(one, number=one.number + 1)))


async def test_a_server_shows_the_lists_of_all_and_signs_its_own(authority: Authority, clock: ManualClock) -> None:
    """Nobody else has the key."""
    lists = Lists(authority)
    await lists.tick(clock.now())
    foreign = replace(lists.current[0], issuer_key_id=b"\x07" * 20)
    await authority.ring.database.write(partial(store.keep, one=foreign))
    await lists.tick(clock.now())
    assert len(lists.ders) == 2  # of an authority nobody believes nothing is shown
    taken = Issued(
        issuer_key_id=b"\x07" * 20, serial=9, kind=Kind.LEAF, spiffe_id="spiffe://example.org/x", instance=None,
        not_after=clock.now() + timedelta(hours=1),
    )  # fmt: skip
    await authority.ring.database.write(partial(store.revoke, leaves=[taken], reason="r", now=clock.now()))
    before = lists.ders
    await clock.advance(60)
    await lists.tick(clock.now())
    assert lists.ders == before


async def test_an_authority_that_is_over_has_no_list_any_more(authority: Authority, clock: ManualClock) -> None:
    """What it signed is believed by nobody."""
    lists, rotation = Lists(authority), Rotation(authority)
    await lists.tick(clock.now())
    old = authority.ring.active(Kind.ISSUING)
    assert old is not None
    await go_to(clock, old.not_after)
    for _ in range(4):
        await rotation.tick(clock.now())
        await clock.advance(6 * 86400)
    found = await authority.ring.database.read(store.everything)
    assert {one.state for one in found if one.key_id == old.key_id} == {State.RETIRED}
    await lists.tick(clock.now())
    assert old.key_id not in await authority.ring.database.read(store.numbers)


async def test_who_watches_is_told_of_a_new_list_and_of_nothing_else(authority: Authority, clock: ManualClock) -> None:
    """A wake for each held stream is not free."""
    lists, told = Lists(authority), []
    lists.subscribe(lambda: told.append(lists.ders))
    await lists.tick(clock.now())
    await lists.tick(clock.now())
    assert len(told) == 1
    await issue(authority, clock)
    await take_back(authority, clock, INSTANCE)
    await lists.tick(clock.now())
    assert len(told) == 2


class RoomForRowsOnly:
    """A real store with room for a row and, while `full`, for no list."""

    def __init__(self, database: Database) -> None:
        self._database, self.full = database, False

    async def read(self, unit: Unit[Any]) -> Any:
        return await self._database.read(unit)

    async def write(self, unit: Unit[Any], *, ending: bool = False) -> Any:
        if self.full and getattr(unit, "func", None) is store.keep:
            raise StoreFull("no space is left")
        return await self._database.write(unit, ending=ending)


async def test_a_list_the_disk_has_no_room_for_is_shown_all_the_same(tmp_path: Path, clock: ManualClock) -> None:
    """What ends access waits for no record; a new process signs it above what was shown (traps 12)."""
    async with open_sqlite(tmp_path / "ca.db") as database:
        room = RoomForRowsOnly(database)
        async with open_authority(settings(), room, MemoryKeyStore(), clock) as authority:
            lists = Lists(authority)
            await lists.tick(clock.now())
            first = await issue(authority, clock)
            room.full = True
            await take_back(authority, clock, INSTANCE)
            await lists.tick(clock.now())
            shown = of(lists, authority, Kind.ISSUING)
            assert shown.serials == frozenset({first.serial})
            await clock.advance(60)
            await lists.tick(clock.now())
            assert of(lists, authority, Kind.ISSUING).number == shown.number
            another = Lists(authority)
            room.full = False
            await another.tick(clock.now())
            assert of(another, authority, Kind.ISSUING).serials == shown.serials
            assert of(another, authority, Kind.ISSUING).number > shown.number
            second = await issue(authority, clock, OTHER)
            await take_back(authority, clock, OTHER)
            await lists.tick(clock.now())
            assert second.serial in of(lists, authority, Kind.ISSUING).serials


async def test_a_key_that_fails_keeps_nobody_else_s_list_back(tmp_path: Path, clock: ManualClock) -> None:
    """It is tried again, and said, with every tick."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, clock) as authority:
        lists = Lists(authority)
        await lists.tick(clock.now())
        gone = await issue(authority, clock)
        await take_back(authority, clock, INSTANCE)
        keys.sign_failure = Unavailable("the token does not answer")
        for _ in range(2):
            with pytest.raises(Unavailable, match="token"):
                await lists.tick(clock.now())
            assert len(lists.ders) == 2
        keys.sign_failure = None
        await lists.tick(clock.now())
        assert gone.serial in of(lists, authority, Kind.ISSUING).serials


async def test_what_a_lost_key_signed_is_said_to_be_on_no_list(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys in memory are gone after a restart; nobody is to think that others were told."""
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        gone = await issue(authority, clock)
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        lists = Lists(authority)
        await take_back(authority, clock, INSTANCE)
        for _ in range(2):
            await lists.tick(clock.now())
        assert not any(gone.serial in one.serials for one in lists.revocations)
        assert [one.levelname for one in caplog.records if "no list can name" in one.message] == ["ERROR"]


async def test_a_full_list_names_those_that_live_longest(authority: Authority, clock: ManualClock) -> None:
    """And the others in their place as these expire; a full list is no reason to sign for ever."""
    lists = Lists(authority)
    await lists.tick(clock.now())
    await issue(authority, clock, ttl=timedelta(minutes=10))
    longest = await issue(authority, clock, ttl=timedelta(hours=1))
    await take_back(authority, clock, INSTANCE)
    issuer, now = longest.issuer_key_id, clock.now()

    async def claimed(tx: Transaction) -> Sequence[Entry]:
        above = (await store.numbers(tx))[issuer]
        found = await store.claim_entries(tx, issuer, above=above, number=above + 1, most=1, now=now)
        assert not await store.unlisted(tx, issuer, above + 1)
        return found

    assert [one.serial for one in await authority.ring.database.write(claimed)] == [longest.serial]
