"""Moves of authorities: prepared early, told before they sign, kept until what they signed is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from ca import store
from ca.authority import Authority
from ca.errors import Conflict, NotFound, Stale, Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.profiles.prepared import Kind
from ca.rotation import GRACE, INITIAL, TRANSITIONS, Event, Rotation, step
from ca.spiffe import jwtsvid, x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import Move, State, StoredAuthority
from fakes.authority import BEGIN, leaf, opened, settings, token
from fakes.clock import ManualClock

DAY = timedelta(days=1)
KINDS = (Kind.ROOT, Kind.ISSUING, Kind.JWT, Kind.WIT)


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    """One that was opened at the beginning."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        yield authority


def in_state(authority: Authority, kind: Kind, state: State) -> list[StoredAuthority]:
    """Those of this kind in this state."""
    return [each for each in authority.ring.authorities if (each.kind, each.state) == (kind, state)]


def the(authority: Authority, kind: Kind, state: State) -> StoredAuthority:
    """The only one of this kind in this state."""
    (found,) = in_state(authority, kind, state)
    return found


def _bundles(authority: Authority) -> BundleSet:
    return BundleSet.of(authority.bundle(BEGIN))


def test_the_table_reaches_every_state_and_ends() -> None:
    """Each state is reached from the first, `retired` and `revoked` are final, and nothing comes back to `active`."""
    reached, new = {INITIAL}, {INITIAL}
    while new:
        new = {after for (before, _), after in TRANSITIONS.items() if before in new} - reached
        reached |= new
    assert reached == set(State)
    final = reached - {before for before, _ in TRANSITIONS}
    assert final == {State.RETIRED, State.REVOKED}
    assert {before for (before, _), after in TRANSITIONS.items() if after is State.ACTIVE} == {State.PREPARED}
    assert {event for _, event in TRANSITIONS} == set(Event)


async def test_what_the_table_does_not_have_is_refused(authority: Authority) -> None:
    """Every pair of a state and an event that is not in it, with the state in the sentence."""
    some = the(authority, Kind.ROOT, State.ACTIVE)
    for event in Event:
        if (State.ACTIVE, event) not in TRANSITIONS:
            with pytest.raises(Conflict, match="it is `active`, expected"):
                step(some, event)


async def test_the_first_tick_makes_one_of_each(authority: Authority) -> None:
    """Root, issuing authority and JWT key are active, nothing else is there, and leaves can be signed."""
    assert [(each.kind, each.state) for each in authority.ring.authorities if each.state is not State.ACTIVE] == []
    assert {each.kind for each in authority.ring.authorities} == set(KINDS)
    await authority.sign_x509(leaf(authority, BEGIN))


async def test_a_tick_is_idempotent(authority: Authority) -> None:
    """At every moment of a life a second tick finds nothing to do."""
    rotation = Rotation(authority)
    for days in range(0, 40, 3):
        now = BEGIN + days * DAY
        await rotation.tick(now)
        before = authority.ring.authorities, authority.bundle(now)
        await rotation.tick(now)
        assert (authority.ring.authorities, authority.bundle(now)) == before


async def test_the_successor_is_prepared_at_half_and_signs_at_a_sixth(authority: Authority) -> None:
    """With thirty days: prepared on day 15, active on day 25, and in the bundle all the while."""
    rotation = Rotation(authority)
    first = the(authority, Kind.JWT, State.ACTIVE)
    await rotation.tick(BEGIN + 14.9 * DAY)
    assert not in_state(authority, Kind.JWT, State.PREPARED)
    await rotation.tick(BEGIN + 15 * DAY)
    following = the(authority, Kind.JWT, State.PREPARED)
    assert following.key_id.hex() in authority.bundle(BEGIN).jwt_authorities
    await rotation.tick(BEGIN + 24.9 * DAY)
    assert the(authority, Kind.JWT, State.ACTIVE) == first
    await rotation.tick(BEGIN + 25 * DAY)
    assert the(authority, Kind.JWT, State.ACTIVE).key_id == following.key_id


@pytest.mark.clause("FED-2")
async def test_an_old_key_stays_until_its_last_token_has_expired(authority: Authority) -> None:
    """And goes soon after; its private half is destroyed with it."""
    rotation, keys = Rotation(authority), authority.ring.key_store
    first = the(authority, Kind.JWT, State.ACTIVE)
    await authority.sign_jwt(token(authority, BEGIN, ttl=timedelta(days=20)))
    await rotation.replace(Kind.JWT, BEGIN + DAY)
    last = BEGIN + 20 * DAY
    await rotation.tick(last + GRACE - timedelta(seconds=1))
    assert first.key_id.hex() in authority.bundle(BEGIN).jwt_authorities
    assert first.key_name in await keys.list()
    await rotation.tick(last + GRACE)
    assert first.key_id.hex() not in authority.bundle(BEGIN).jwt_authorities
    assert first.key_name not in await keys.list()


async def test_after_a_long_sleep_one_tick_is_enough(authority: Authority) -> None:
    """A laptop that slept for years signs again after its first tick, and again and again."""
    rotation = Rotation(authority)
    for days in (40, 400, 4000, 40000):
        now = BEGIN + days * DAY
        await rotation.tick(now)
        for kind in KINDS:
            assert authority.ring.signer(kind, now).not_before <= now
        assert authority.issuer(now).not_after > now + 5 * DAY


async def test_a_new_root_takes_over_by_word(authority: Authority) -> None:
    """Root and issuing authority are replaced, what the old ones signed goes on, the pinned hash is the new root's."""
    rotation = Rotation(authority)
    chain, pinned = await authority.sign_x509(leaf(authority, BEGIN)), authority.root_key_hash(BEGIN)
    await rotation.tick(BEGIN + 15 * DAY)  # an issuing authority is prepared under the first root
    now = BEGIN + 16 * DAY
    await rotation.replace(Kind.ROOT, now)
    root, issuing = (the(authority, kind, State.ACTIVE) for kind in (Kind.ROOT, Kind.ISSUING))
    assert issuing.issuer_key_id == root.key_id
    assert authority.root_key_hash(now) != pinned
    assert not in_state(authority, Kind.ISSUING, State.PREPARED)
    x509svid.verify(chain, BundleSet.of(authority.bundle(now)), BEGIN)


async def test_a_compromised_root_is_tainted_then_revoked(authority: Authority) -> None:
    """Still believed while tainted, so that peers can get away; gone when revoked, with all it ever signed."""
    rotation, bundles = Rotation(authority), partial(_bundles, authority)
    root = the(authority, Kind.ROOT, State.ACTIVE)
    chain = await authority.sign_x509(leaf(authority, BEGIN))
    with pytest.raises(Conflict, match="signs at the moment: rotate it first"):
        await rotation.taint(root.key_id, BEGIN)
    await rotation.replace(Kind.ROOT, BEGIN)
    with pytest.raises(Conflict, match="it is `old`, expected `tainted`"):
        await rotation.revoke(root.key_id, BEGIN)
    await rotation.taint(root.key_id, BEGIN)
    await rotation.taint(root.key_id, BEGIN)
    x509svid.verify(chain, bundles(), BEGIN)
    fresh = await authority.sign_x509(leaf(authority, BEGIN))
    await rotation.revoke(root.key_id, BEGIN)
    with pytest.raises(x509svid.Untrusted):
        x509svid.verify(chain, bundles(), BEGIN)
    x509svid.verify(fresh, bundles(), BEGIN)
    assert root.key_name not in await authority.ring.key_store.list()
    with pytest.raises(NotFound):
        await rotation.revoke(root.key_id, BEGIN)


async def test_an_issuing_authority_is_not_revoked_alone(authority: Authority) -> None:
    """The sentence says what would: as long as its root is believed, so is it."""
    rotation = Rotation(authority)
    issuing = the(authority, Kind.ISSUING, State.ACTIVE)
    await rotation.replace(Kind.ISSUING, BEGIN)
    await rotation.taint(issuing.key_id, BEGIN)
    with pytest.raises(Conflict, match="revoke that root"):
        await rotation.revoke(issuing.key_id, BEGIN)


async def test_tokens_of_a_revoked_key_are_refused(authority: Authority) -> None:
    """Its `kid` is no longer in the bundle."""
    rotation = Rotation(authority)
    key = the(authority, Kind.JWT, State.ACTIVE)
    text = await authority.sign_jwt(token(authority, BEGIN))
    await rotation.replace(Kind.JWT, BEGIN)
    await rotation.taint(key.key_id, BEGIN)
    await rotation.revoke(key.key_id, BEGIN)
    with pytest.raises(jwtsvid.Untrusted):
        jwtsvid.verify(text, "server", BundleSet.of(authority.bundle(BEGIN)), BEGIN)


async def test_a_tainted_one_never_retires_by_itself(authority: Authority) -> None:
    """An operator's word is ended by an operator's word."""
    rotation = Rotation(authority)
    key = the(authority, Kind.JWT, State.ACTIVE)
    await rotation.replace(Kind.JWT, BEGIN)
    await rotation.taint(key.key_id, BEGIN)
    await rotation.tick(BEGIN + 100 * DAY)
    assert the(authority, Kind.JWT, State.TAINTED).key_id == key.key_id


async def test_a_change_behind_ones_back_is_not_overwritten(authority: Authority) -> None:
    """Another process tainted the authority: ours signs nothing with it, can't move it, and goes on beside it."""
    active = the(authority, Kind.ISSUING, State.ACTIVE)
    elsewhere = Move(key_id=active.key_id, before=State.ACTIVE, after=State.TAINTED)
    await authority.ring.database.write(partial(store.move, step=elsewhere, now=BEGIN))
    with pytest.raises(Stale, match="no longer active"):
        await authority.sign_x509(leaf(authority, BEGIN))
    with pytest.raises(Stale, match="no longer `active`"):
        await authority.ring.move([step(active, Event.REPLACE)], BEGIN)
    await Rotation(authority).replace(Kind.ISSUING, BEGIN)
    assert the(authority, Kind.ISSUING, State.TAINTED).key_id == active.key_id
    await authority.sign_x509(leaf(authority, BEGIN))


async def test_without_a_valid_root_no_issuing_authority_is_made(authority: Authority) -> None:
    """It is refused before any key is made."""
    keys = list(await authority.ring.key_store.list())
    with pytest.raises(Unavailable, match="root"):
        await Rotation(authority).replace(Kind.ISSUING, BEGIN + 4000 * DAY)
    assert list(await authority.ring.key_store.list()) == keys


async def test_the_shortest_lives_still_rotate(tmp_path: Path) -> None:
    """Lives of seconds, as tests and demos have them: each tick ends, and something can always sign."""
    clock = ManualClock(BEGIN)
    second = timedelta(seconds=1)
    chosen = settings(root_ttl=36 * second, ca_ttl=6 * second, x509_ttl=second, jwt_ttl=second, wit_ttl=second)
    async with opened(tmp_path, MemoryKeyStore(), clock, chosen) as authority:
        rotation = Rotation(authority)
        for _ in range(120):
            await clock.advance(0.5)
            await rotation.tick(clock.now())
            await authority.sign_x509(leaf(authority, clock.now(), ttl=second))
