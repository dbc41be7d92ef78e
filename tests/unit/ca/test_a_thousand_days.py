"""A thousand days of rotation, restarts included, at one server and at two over one store.

At each tick each server signs a leaf, a token and a WIT as long-lived as they may be, and then everything is looked at:
what peers were told, and when; what of all that was signed is still believed; how many authorities there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.authority import Authority, AuthoritySettings
from ca.keys.disk import DiskKeyStore
from ca.profiles import wit
from ca.profiles.prepared import Kind
from ca.rotation import Rotation, open_authority
from ca.runtime.sqlite import open_sqlite
from ca.spiffe import jwtsvid, witsvid, x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import State, StoredAuthority
from fakes.authority import BEGIN, DOMAIN, leaf, settings, token
from fakes.clock import ManualClock

DAY = timedelta(days=1)
TICK = DAY
DAYS = 1000
RESTART_EVERY = 100  # ticks
CHOSEN = settings(root_ttl=180 * DAY)
TOLD_BEFORE = CHOSEN.ca_ttl / 6
"""How old a peer's bundle may be, and still it believes whatever is signed now."""
HOLDER = ec.generate_private_key(ec.SECP256R1()).public_key()
SPKI = HOLDER.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Seen:
    """What a run has shown."""

    bundles: list[tuple[datetime, BundleSet, int, bytes]] = field(default_factory=list)
    chains: list[tuple[datetime, Sequence[bytes]]] = field(default_factory=list)
    tokens: list[tuple[datetime, str]] = field(default_factory=list)
    states: dict[bytes, dict[State, datetime]] = field(default_factory=dict)
    known: dict[bytes, StoredAuthority] = field(default_factory=dict)

    def look(self, authority: Authority, now: datetime) -> None:
        """Note what peers are told, and hold everything alive against it."""
        bundle = authority.bundle(now)
        bundles = BundleSet.of(bundle)
        self.bundles.append((now, bundles, bundle.sequence or 0, _members(bundle.to_jwks())))
        for each in authority.believed:
            self.states.setdefault(each.key_id, {}).setdefault(each.state, now)
            self.known.setdefault(each.key_id, each)
        self.chains = [(end, chain) for end, chain in self.chains if end > now]
        self.tokens = [(end, text) for end, text in self.tokens if end > now]
        for _, chain in self.chains:
            x509svid.verify(chain, bundles, now)
        for _, text in self.tokens:
            jwtsvid.verify(text, "server", bundles, now)

    async def sign(self, authority: Authority, now: datetime) -> None:
        """One of each, as long as it may be; believed by whoever has not asked for a bundle for days."""
        longest = CHOSEN.longest_x509_ttl - TICK - timedelta(hours=1)  # the last one is signed a tick before the change
        prepared, text = leaf(authority, now, ttl=longest), token(authority, now, ttl=longest)
        chain, signed = await authority.sign_x509(prepared), await authority.sign_jwt(text)
        request = wit.WitRequest(id=DOMAIN.member("/agent"), public_key=SPKI, instance=None, ttl=longest)
        proven = await authority.sign_wit(wit.prepare(request, authority.wit_issuer(now), now))
        ends = authority.issuer(now).not_after, authority.jwt_issuer(now).not_after
        assert prepared.not_after <= ends[0]
        assert text.not_after <= ends[1]
        old = next((bundles for then, bundles, _, _ in reversed(self.bundles) if now - then >= TOLD_BEFORE), None)
        if old is not None:
            x509svid.verify(chain, old, now)
            jwtsvid.verify(signed, "server", old, now)
            witsvid.check(proven, old, now)
        self.chains.append((prepared.not_after, chain))
        self.tokens.append((text.not_after, signed))


def _members(document: bytes) -> bytes:
    """The document without its number."""
    return document.partition(b'"spiffe_sequence"')[0]


@asynccontextmanager
async def servers(folder: Path, names: Sequence[str], clock: ManualClock) -> AsyncIterator[list[Authority]]:
    """All of them, over one store, each with a folder of keys."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_sqlite(folder / "ca.db"))
        opened = []
        for name in names:
            chosen = AuthoritySettings(trust_domain=DOMAIN, root_ttl=CHOSEN.root_ttl, server=name)
            keys = DiskKeyStore(folder / name, None)
            opened.append(await stack.enter_async_context(open_authority(chosen, database, keys, clock)))
        yield opened


async def live(folder: Path, names: Sequence[str]) -> Seen:
    """A thousand days."""
    clock, seen = ManualClock(BEGIN), Seen()
    for _ in range(int(DAYS / (TICK / DAY) / RESTART_EVERY)):
        async with servers(folder, names, clock) as authorities:
            rotations = [Rotation(each) for each in authorities]
            for _ in range(RESTART_EVERY):
                await clock.advance(TICK.total_seconds())
                now = clock.now()
                for rotation, authority in zip(rotations, authorities, strict=True):
                    await rotation.tick(now)
                    if authority.signs(now):
                        await seen.sign(authority, now)
                    seen.look(authority, now)
            for authority in authorities:
                assert len(authority.believed) <= 10 * len(names)
                own = [each for each in authority.believed if each.server == authority.settings.server]
                assert len(await authority.ring.key_store.list()) == len(own)
    assert clock.now() - BEGIN == DAYS * DAY
    return seen


@pytest.mark.clause("TB-2", "FED-1", "FED-2")
@pytest.mark.parametrize("names", [("main",), ("one", "two")], ids=["alone", "two"])
async def test_a_thousand_days(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Prepared at half, signing with a sixth left, told long before; the number rises exactly with the bundle."""
    seen = await live(tmp_path, names)
    assert len(seen.chains) >= 3 * len(names)
    replaced = 0
    for key_id, states in seen.states.items():
        one = seen.known[key_id]
        life = one.not_after - one.not_before - timedelta(seconds=30)
        if State.OLD in states and State.ACTIVE in states:
            assert timedelta(0) <= states[State.OLD] - (one.not_after - life / 6) <= TICK
            replaced += 1
        told = states.get(State.PREPARED)
        if told is not None and told > BEGIN + DAY and State.ACTIVE in states and one.kind is not Kind.ISSUING:
            assert states[State.ACTIVE] - told >= TOLD_BEFORE
    assert replaced >= (3 * (DAYS // 30) + DAYS // 180) * len(names)
    for (_, _, before, old), (_, _, after, new) in pairwise(seen.bundles):
        assert (after > before) is (old != new)
        assert after >= before


def test_the_members_of_a_bundle_are_compared_without_its_number() -> None:
    """Or the comparison above would find every bundle another one."""
    assert _members(b'{"keys":[],"spiffe_sequence":7}') == b'{"keys":[],'
