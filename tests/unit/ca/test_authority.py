"""Signing: what comes out verifies, and nothing comes out that was not allowed and recorded."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store

from ca import store
from ca.authority import Authority, AuthoritySettings, KeyLost
from ca.authority.settings import name_warnings
from ca.errors import Conflict, Malformed, Stale, Unavailable
from ca.keys import open_key_store
from ca.keys.disk import DiskKeyStore
from ca.keys.memory import MemoryKeyStore
from ca.keys.protocol import KeyUnusable, Place, Purpose
from ca.lint import Unfit
from ca.profiles.prepared import Kind
from ca.rotation import Rotation, open_authority
from ca.runtime.database import StoreFull
from ca.runtime.sqlite import open_sqlite
from ca.seal import AesSeal
from ca.spiffe import jwtsvid, x509svid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain
from fakes.authority import (
    BEGIN,
    DOMAIN,
    INSTANCE,
    WatchedDatabase,
    WatchedKeyStore,
    leaf,
    opened,
    settings,
    token,
)
from fakes.clock import ManualClock


async def test_a_leaf_verifies_against_the_bundle(tmp_path: Path) -> None:
    """Our SPIFFE verifier finds identity, instance, serial and issuer in it."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        prepared = leaf(authority, BEGIN, dns_names=("agent.example",))
        chain = await authority.sign_x509(prepared)
        peer = x509svid.verify(chain, BundleSet.of(authority.bundle(BEGIN)), BEGIN)
    assert (peer.id, peer.instance, peer.serial) == (DOMAIN.member("/agent"), INSTANCE, prepared.serial)
    assert peer.issuer_key_id == prepared.issuer_key_id
    assert len(chain) == 2


async def test_a_leaf_verifies_for_others(tmp_path: Path) -> None:
    """The verifier of `cryptography`, which knows nothing of SPIFFE, accepts the chain with its default policy."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        chain = await authority.sign_x509(leaf(authority, BEGIN))
        anchors = Store(list(authority.bundle(BEGIN).x509_authorities))
    certificate, issuing = map(x509.load_der_x509_certificate, chain)
    verifier = PolicyBuilder().store(anchors).time(BEGIN).build_client_verifier()
    assert verifier.verify(certificate, [issuing]).chain[0] == certificate
    certificate.verify_directly_issued_by(issuing)


async def test_a_token_verifies_against_the_bundle(tmp_path: Path) -> None:
    """By joserfc, with the key the bundle names; the instance is in its claims."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        text = await authority.sign_jwt(token(authority, BEGIN, audience=("server", "other")))
        svid = jwtsvid.verify(text, "server", BundleSet.of(authority.bundle(BEGIN)), BEGIN)
    assert (svid.id, svid.audience) == (DOMAIN.member("/agent"), ("server", "other"))
    assert svid.expires_at == BEGIN + timedelta(minutes=5)
    assert svid.claims["urn:sojourn:instance"] == INSTANCE


async def test_the_root_is_named_by_the_hash_of_its_key(tmp_path: Path) -> None:
    """A join token pins SHA-256 of the SubjectPublicKeyInfo."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        (root,) = authority.bundle(BEGIN).x509_authorities
        spki = root.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert authority.root_key_hash(BEGIN) == hashlib.sha256(spki).hexdigest()


async def test_what_is_signed_is_recorded(tmp_path: Path) -> None:
    """Leaves and tokens of an instance can be listed by issuer and serial."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        first, second = leaf(authority, BEGIN), token(authority, BEGIN)
        await authority.sign_x509(first)
        await authority.sign_jwt(second)
        found = await authority.issued_to(INSTANCE, BEGIN)
    assert {(each.issuer_key_id, each.serial, each.kind) for each in found} == {
        (first.issuer_key_id, first.serial, Kind.LEAF),
        (second.issuer_key_id, second.serial, Kind.JWT),
    }


async def test_the_record_is_there_before_the_signature(tmp_path: Path) -> None:
    """A key that dies while signing leaves the serial in the store."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, ManualClock(BEGIN)) as authority:
        keys.sign_failure = RuntimeError("the token was pulled out")
        prepared = leaf(authority, BEGIN)
        with pytest.raises(RuntimeError):
            await authority.sign_x509(prepared)
        assert [each.serial for each in await authority.issued_to(INSTANCE, BEGIN)] == [prepared.serial]


@pytest.mark.parametrize("failure", [StoreFull("no space is left"), Unavailable("the store does not answer")])
async def test_without_a_record_there_is_no_signature(tmp_path: Path, failure: Exception) -> None:
    """A full disk and a dead store stop what gives access."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with open_sqlite(tmp_path / "ca.db") as real:
        database = WatchedDatabase(real)
        async with open_authority(settings(), database, keys, ManualClock(BEGIN)) as authority:
            keys.signed.clear()
            database.failure = failure
            with pytest.raises(type(failure)):
                await authority.sign_x509(leaf(authority, BEGIN))
            with pytest.raises(type(failure)):
                await authority.sign_jwt(token(authority, BEGIN))
            assert keys.signed == []


async def test_a_batch_is_one_durable_write(tmp_path: Path) -> None:
    """A hundred leaves wait for the disk once."""
    async with open_sqlite(tmp_path / "ca.db") as real:
        database = WatchedDatabase(real)
        async with open_authority(settings(), database, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
            before = database.writes
            chains = await authority.sign_x509_many([leaf(authority, BEGIN) for _ in range(100)])
            assert database.writes == before + 1
            assert len({chain[0] for chain in chains}) == 100
            assert await authority.sign_x509_many([]) == []


async def test_a_batch_is_signed_whole_or_not_at_all(tmp_path: Path) -> None:
    """One unfit leaf among many: nothing is recorded and nothing signed."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, ManualClock(BEGIN)) as authority:
        keys.signed.clear()
        with pytest.raises(Unfit):
            await authority.sign_x509_many([leaf(authority, BEGIN), leaf(authority, BEGIN, dns_names=("*",))])
        assert keys.signed == []
        assert not await authority.issued_to(INSTANCE, BEGIN)


async def test_keys_sign_for_their_purpose(tmp_path: Path) -> None:
    """A leaf by the issuing authority's key, a token by the JWT key, and the root for neither."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, ManualClock(BEGIN)) as authority:
        assert [purpose for purpose, _ in keys.signed] == [Purpose.SPIFFE_ROOT, Purpose.SPIFFE_ROOT]
        keys.signed.clear()
        await authority.sign_x509(leaf(authority, BEGIN))
        await authority.sign_jwt(token(authority, BEGIN))
        assert [purpose for purpose, _ in keys.signed] == [Purpose.SPIFFE_X509, Purpose.SPIFFE_JWT]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ttl": timedelta(days=31)}, "outlive its issuer"),
        ({"id": DOMAIN.id}, "no path"),
        ({"id": TrustDomain.parse("other.org").member("/agent")}, "not in the trust domain"),
        ({"instance": "short"}, "32 hexadecimal"),
    ],
)
async def test_what_may_not_be_signed_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """With the words of the rule, and without a record."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        with pytest.raises(Unfit) as caught:
            await authority.sign_x509(leaf(authority, BEGIN, **changes))
        assert words in str(caught.value)
        assert not await authority.issued_to(INSTANCE, BEGIN)


@pytest.mark.clause("ID-13")
async def test_a_token_is_no_leaf_and_a_leaf_no_token(tmp_path: Path) -> None:
    """Each road takes its own kind; a mix-up is our own mistake."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        with pytest.raises(RuntimeError, match="leaf"):
            await authority.sign_x509(token(authority, BEGIN))
        with pytest.raises(RuntimeError, match="jwt"):
            await authority.sign_jwt(leaf(authority, BEGIN))


async def test_what_waited_too_long_is_prepared_again(tmp_path: Path) -> None:
    """After its issuer was replaced, or after its own end, a Prepared is stale."""
    clock = ManualClock(BEGIN)
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        old = leaf(authority, BEGIN)
        await Rotation(authority).replace(Kind.ISSUING, BEGIN)
        with pytest.raises(Stale):
            await authority.sign_x509(old)
        late = leaf(authority, BEGIN)
        await clock.advance(3600)
        with pytest.raises(Stale):
            await authority.sign_x509(late)


async def test_nothing_is_signed_while_the_clocks_disagree(tmp_path: Path) -> None:
    """A stepped wall clock stops grants (traps 16)."""
    clock = ManualClock(BEGIN)
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        prepared = leaf(authority, BEGIN)
        clock.step_wall()
        with pytest.raises(Unavailable, match="clocks disagree"):
            await authority.sign_x509(prepared)


async def test_an_authority_past_its_end_does_not_sign(tmp_path: Path) -> None:
    """When rotation stood still, issuers and at last the bundle are unavailable, not wrong."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        for ask in (authority.issuer, authority.jwt_issuer, authority.root_key_hash):
            with pytest.raises(Unavailable):
                ask(BEGIN + timedelta(days=30))
        authority.bundle(BEGIN + timedelta(days=30))
        with pytest.raises(Unavailable, match="no valid root"):
            authority.bundle(BEGIN + timedelta(days=3650))


@pytest.mark.parametrize("seal", [None, AesSeal(bytes(32))], ids=["plain", "sealed"])
async def test_a_restart_with_keys_on_disk_changes_nothing(tmp_path: Path, seal: AesSeal | None) -> None:
    """Same root, same bundle to the byte, and old leaves still verify."""
    keys = partial(open_key_store, "disk", Place(folder=tmp_path / "keys", seal=seal))
    async with opened(tmp_path, keys(), ManualClock(BEGIN)) as authority:
        before = authority.bundle(BEGIN).to_jwks()
        chain = await authority.sign_x509(leaf(authority, BEGIN))
    async with opened(tmp_path, keys(), ManualClock(BEGIN + timedelta(minutes=5))) as authority:
        assert authority.bundle(BEGIN).to_jwks() == before
        x509svid.verify(chain, BundleSet.of(authority.bundle(BEGIN)), BEGIN)
        assert any("unsealed" in words for words in authority.warnings) is (seal is None)


async def test_a_restart_with_keys_in_memory_begins_anew_beside_the_old(tmp_path: Path) -> None:
    """What the last run signed verifies until it expires; new leaves come from a new root; the warnings say so."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        first = authority.bundle(BEGIN)
        chain = await authority.sign_x509(leaf(authority, BEGIN))
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        second = authority.bundle(BEGIN)
        assert set(first.x509_authorities) < set(second.x509_authorities)
        assert set(first.jwt_authorities) <= set(second.jwt_authorities)
        assert (second.sequence or 0) > (first.sequence or 0)
        x509svid.verify(chain, BundleSet.of(second), BEGIN)
        fresh = await authority.sign_x509(leaf(authority, BEGIN))
        assert x509svid.verify(fresh, BundleSet.of(second), BEGIN).instance == INSTANCE
        assert any("were in memory and are gone" in words for words in authority.warnings)
        states = [(each.kind, each.state) for each in authority.ring.authorities]
        assert (Kind.ROOT, store.State.OLD) in states
        assert (Kind.ISSUING, store.State.OLD) in states


async def test_a_missing_key_file_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    """Keys that ought to be on disk and are not stop the start."""
    folder = tmp_path / "keys"
    async with opened(tmp_path, DiskKeyStore(folder, None), ManualClock(BEGIN)):
        pass
    (root,) = folder.glob("root-*.key")
    root.unlink()
    with pytest.raises(KeyLost, match="restore the key store"):
        async with opened(tmp_path, DiskKeyStore(folder, None), ManualClock(BEGIN)):
            pass


async def test_another_key_under_the_right_name_is_refused(tmp_path: Path) -> None:
    """Whoever lays a key of their own into the folder does not become the authority."""
    folder = tmp_path / "keys"
    keys = DiskKeyStore(folder, None)
    async with opened(tmp_path, keys, ManualClock(BEGIN)):
        pass
    (root,) = folder.glob("root-*.key")
    root.unlink()
    await keys.create(root.stem, Purpose.SPIFFE_ROOT)
    with pytest.raises(KeyUnusable, match="is not the one its authority was made with"):
        async with opened(tmp_path, keys, ManualClock(BEGIN)):
            pass


async def test_a_store_of_another_trust_domain_is_refused(tmp_path: Path) -> None:
    """Before any key is made."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)):
        pass
    keys = MemoryKeyStore()
    other = settings(trust_domain=TrustDomain.parse("other.org"))
    with pytest.raises(Conflict, match=r"example\.org"):
        async with opened(tmp_path, keys, ManualClock(BEGIN), other):
            pass
    assert not await keys.list()


async def test_a_key_whose_authority_was_never_finished_is_destroyed(tmp_path: Path) -> None:
    """A crash between making a key and using it leaves a name, and the next start follows it."""
    folder = tmp_path / "keys"
    async with opened(tmp_path, DiskKeyStore(folder, None), ManualClock(BEGIN)) as authority:
        kept = await DiskKeyStore(folder, None).list()
        await authority.ring.database.write(partial(store.intend_key, server="main", key_name="jwt-orphan"))
        await DiskKeyStore(folder, None).create("jwt-orphan", Purpose.SPIFFE_JWT)
        await DiskKeyStore(folder, None).create("somebody-elses", Purpose.TOKENS)
    async with opened(tmp_path, DiskKeyStore(folder, None), ManualClock(BEGIN)):
        assert list(await DiskKeyStore(folder, None).list()) == sorted([*kept, "somebody-elses"])


@pytest.mark.clause("TB-2")
async def test_subscribers_hear_of_every_change(tmp_path: Path) -> None:
    """After the change, until they end it."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        heard: list[int | None] = []
        end = authority.subscribe(lambda: heard.append(authority.bundle(BEGIN).sequence))
        before = authority.bundle(BEGIN).sequence or 0
        await Rotation(authority).replace(Kind.JWT, BEGIN)
        assert heard == [before + 1, before + 1]
        end()
        end()
        await Rotation(authority).replace(Kind.JWT, BEGIN)
        assert len(heard) == 2


async def test_only_the_authority_is_shown_in_its_repr(tmp_path: Path) -> None:
    """Nothing of a key is in what a traceback might print."""
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(BEGIN)) as authority:
        assert isinstance(authority, Authority)
        assert "PRIVATE" not in repr(vars(authority.ring))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x509_ttl": timedelta(days=6)}, "`x509_ttl` is too long: expected at most a sixth of `ca_ttl`"),
        ({"jwt_ttl": timedelta(days=6)}, "`jwt_ttl` is too long"),
        ({"ca_ttl": timedelta(days=1000)}, "`ca_ttl` is too long: expected at most a sixth of `root_ttl`"),
        ({"x509_ttl": timedelta(0)}, "`x509_ttl` is too short"),
        ({"refresh_hint": timedelta(0)}, "`refresh_hint` is too short"),
        ({"organisation": "x" * 65}, "`organisation`"),
        ({"organisation": "a\nb"}, "`organisation`"),
        ({"country": "Germany"}, "`country`"),
        ({"country": "de"}, "`country`"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    """Naming the key and what was expected."""
    with pytest.raises(Malformed) as caught:
        AuthoritySettings(**{"trust_domain": DOMAIN, **changes})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "count"),
    [("example.org", 0), ("a_b.org", 1), ("10.0.0.1", 1), ("a..b", 1), ("-a.b", 1), ("a.b.", 1), (".a_b..c-", 3)],
)
def test_odd_trust_domain_names_are_warned_of(name: str, count: int) -> None:
    """Legal to the letter, and refused by Java or Go (traps 40)."""
    warnings = name_warnings(TrustDomain.parse(name))
    assert len(warnings) == count
    assert all(f"`{name}`" in words for words in warnings)
