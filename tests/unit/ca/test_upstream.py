"""A root kept elsewhere: it signs our issuing authorities, the bundle shows it, and nothing else of it is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.authority import Authority
from ca.authority.upstream import TokenRootKey, Upstream
from ca.errors import Conflict, NotFound, Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.keys.protocol import KeyUnusable
from ca.profiles.prepared import Kind
from ca.rotation import GRACE, Rotation, open_authority
from ca.runtime.sqlite import open_sqlite
from ca.spiffe import der, x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import State
from fakes.authority import BEGIN, leaf, settings, token
from fakes.clock import ManualClock
from fakes.elsewhere import Corporate, put
from servers import softhsm

WAIT = settings().propagation
DAY = timedelta(days=1)


@asynccontextmanager
async def opened(
    folder: Path, upstream: Upstream | None, clock: ManualClock, keys: MemoryKeyStore | None = None
) -> AsyncIterator[Authority]:
    """An authority whose root is elsewhere, or was."""
    async with (
        open_sqlite(folder / "ca.db") as database,
        open_authority(settings(), database, keys or MemoryKeyStore(), clock, upstream) as authority,
    ):
        yield authority


def anchors(authority: Authority) -> set[x509.Certificate]:
    """The roots in the bundle."""
    return set(authority.bundle(BEGIN).x509_authorities)


async def believed(authority: Authority, clock: ManualClock) -> x509svid.X509Peer:
    """A leaf that is signed now, under the bundle of now."""
    chain = await authority.sign_x509(leaf(authority, clock.now()))
    return x509svid.verify(chain, BundleSet.of(authority.bundle(clock.now())), clock.now())


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
async def test_leaves_stand_on_the_root_kept_elsewhere(tmp_path: Path, passphrase: str | None) -> None:
    """There is no root of ours; further anchors of the file are in the bundle too; tokens have keys of their own."""
    root, other, clock = Corporate(), Corporate("Next Root"), ManualClock(BEGIN)
    async with opened(tmp_path, put(tmp_path, root, other, passphrase=passphrase), clock) as authority:
        assert anchors(authority) == {root.certificate, other.certificate}
        assert {each.kind for each in authority.believed} == {Kind.ISSUING, Kind.JWT, Kind.WIT}
        await believed(authority, clock)
        await authority.sign_jwt(token(authority, BEGIN))
        assert [each.kind for each in authority.list_issuers()] == [Kind.ISSUING]
        assert len(authority.root_key_hash(BEGIN)) == 64


async def test_a_root_on_a_token_signs(tmp_path: Path) -> None:
    """Found by the label whoever made it gave it; another key under that label is refused."""
    place = softhsm.place()
    softhsm.sweep()
    root, stranger = Corporate(key=softhsm.imported("corporate")), Corporate()
    assert place.module is not None
    assert place.pin is not None
    key = TokenRootKey(module=place.module, token=place.token, pin=place.pin, label="corporate")
    (tmp_path / "root.pem").write_bytes(root.pem)
    clock = ManualClock(BEGIN)
    upstream = Upstream(certificate=tmp_path / "root.pem", key=key)
    async with opened(tmp_path, upstream, clock) as authority:
        assert anchors(authority) == {root.certificate}
        await believed(authority, clock)
        (tmp_path / "root.pem").write_bytes(stranger.pem)
        with pytest.raises(KeyUnusable, match="not that of the root's certificate"):
            await upstream.root(BEGIN)
    softhsm.sweep()


async def test_the_issuing_authority_says_what_the_builder_would(tmp_path: Path) -> None:
    """Byte for byte, under a root whose name, identifier and extensions are not of our making."""
    root, clock = Corporate(), ManualClock(BEGIN)
    async with opened(tmp_path, put(tmp_path, root), clock) as authority:
        chain = await authority.sign_x509(leaf(authority, BEGIN))
    made = x509.load_der_x509_certificate(chain[1])
    made.verify_directly_issued_by(root.certificate)
    builder = x509.CertificateBuilder(
        made.issuer, made.subject, made.public_key(), made.serial_number,
        made.not_valid_before_utc.replace(tzinfo=None), made.not_valid_after_utc.replace(tzinfo=None),
    )  # fmt: skip
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    again = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    assert again.tbs_certificate_bytes == made.tbs_certificate_bytes
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign) == (True, True)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == ["spiffe://example.org"]


async def test_from_our_own_root_to_one_elsewhere_and_back(tmp_path: Path) -> None:
    """Peers are told of the other root first; at every moment what is signed is believed, and the old root retires."""
    root, clock, keys = Corporate(), ManualClock(BEGIN), MemoryKeyStore()
    async with opened(tmp_path, None, clock, keys) as authority:
        (own,) = anchors(authority)
    upstream = put(tmp_path, root)
    for there, before, after in ((upstream, own, root.certificate), (None, root.certificate, None)):
        async with opened(tmp_path, there, clock, keys) as authority:
            rotation = Rotation(authority)
            told = BundleSet.of(authority.bundle(clock.now()))
            chain = await authority.sign_x509(leaf(authority, clock.now()))
            assert before in anchors(authority)
            await clock.advance(WAIT.total_seconds())
            for _ in range(2):
                await rotation.tick(clock.now())
            fresh = await authority.sign_x509(leaf(authority, clock.now()))
            x509svid.verify(fresh, told, clock.now())
            x509svid.verify(chain, BundleSet.of(authority.bundle(clock.now())), clock.now())
            assert after is None or after in anchors(authority)
            await clock.advance((31 * DAY + GRACE).total_seconds())
            for _ in range(3):
                await rotation.tick(clock.now())
            assert before not in anchors(authority)
            await believed(authority, clock)


async def test_a_new_root_is_shown_and_then_signs(tmp_path: Path) -> None:
    """The files are replaced in their place; the old root stays as long as something stands on it."""
    old, new, clock = Corporate(), Corporate("New Root"), ManualClock(BEGIN)
    async with opened(tmp_path, put(tmp_path, old), clock) as authority:
        rotation = Rotation(authority)
        first = authority.issuer(BEGIN).key_id
        put(tmp_path, new)
        await rotation.tick(BEGIN)
        assert anchors(authority) == {old.certificate, new.certificate}
        await rotation.rotate(Kind.ISSUING, BEGIN)
        assert authority.issuer(BEGIN).key_id == first
        await clock.advance(WAIT.total_seconds())
        await rotation.tick(clock.now())
        assert authority.issuer(clock.now()).key_id != first
        await believed(authority, clock)
        await rotation.taint(first, clock.now())  # nothing is held up by what is compromised
        await rotation.tick(clock.now())
        assert anchors(authority) == {new.certificate}


async def test_the_root_is_not_ours_to_take_back(tmp_path: Path) -> None:
    """Each verb says who must do it."""
    root, clock = Corporate(), ManualClock(BEGIN)
    async with opened(tmp_path, put(tmp_path, root), clock) as authority:
        rotation, key_id = Rotation(authority), der.key_id_of(root.certificate)
        for verb in (rotation.taint, rotation.revoke):
            with pytest.raises(Conflict, match="whoever holds it must revoke it"):
                await verb(key_id, BEGIN)
        for change in (rotation.rotate, rotation.replace):
            with pytest.raises(Conflict, match="replace what `upstream` names"):
                await change(Kind.ROOT, BEGIN)
        issuing = authority.issuer(BEGIN).key_id
        await rotation.replace(Kind.ISSUING, BEGIN)
        await rotation.taint(issuing, BEGIN)
        with pytest.raises(Conflict, match="have whoever holds its key revoke the certificate"):
            await rotation.revoke(issuing, BEGIN)
        with pytest.raises(NotFound):
            await rotation.taint(bytes(20), BEGIN)


async def test_a_root_that_does_not_answer_keeps_only_what_needs_it(tmp_path: Path) -> None:
    """Token keys rotate, what is signed goes on, no key is left behind, and the trouble is said at each tick."""
    root, clock = Corporate(), ManualClock(BEGIN)
    async with opened(tmp_path, put(tmp_path, root), clock) as authority:
        rotation = Rotation(authority)
        (tmp_path / "root.key").rename(tmp_path / "away")
        await clock.advance((16 * DAY).total_seconds())
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"root\.key"):
                await rotation.tick(clock.now())
        states = {(each.kind, each.state) for each in authority.believed}
        assert (Kind.JWT, State.PREPARED) in states
        assert (Kind.ISSUING, State.PREPARED) not in states
        assert len(await authority.ring.key_store.list()) == len(authority.believed)
        await believed(authority, clock)
        (tmp_path / "away").rename(tmp_path / "root.key")
        await rotation.tick(clock.now())
        assert (Kind.ISSUING, State.PREPARED) in {(each.kind, each.state) for each in authority.believed}


async def test_a_restart_needs_the_root_only_when_nothing_signs(tmp_path: Path) -> None:
    """With an issuing authority there it goes on; without one it does not start, and says what is missing."""
    clock, keys = ManualClock(BEGIN), MemoryKeyStore()
    upstream = put(tmp_path, Corporate())
    async with opened(tmp_path, upstream, clock, keys):
        pass
    (tmp_path / "root.pem").rename(tmp_path / "away")
    async with opened(tmp_path, upstream, clock, keys) as authority:
        await believed(authority, clock)
    (tmp_path / "fresh").mkdir()
    with pytest.raises(Unavailable, match=r"root\.pem"):
        async with opened(tmp_path / "fresh", upstream, clock):
            pass


P384 = ec.generate_private_key(ec.SECP384R1())
NAMES = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)
OTHER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Above")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca": False}, "may not sign certificates"),
        ({"signs": False}, "may not sign certificates"),
        ({"path_length": 0}, "path length of 1 or more"),
        ({"issuer": OTHER}, "is no root"),
        ({"extensions": [NAMES]}, "name constraints"),
        ({"key": P384}, "not on P-256"),
        ({"life": timedelta(days=-1)}, "not valid now"),
    ],
    ids=["no-ca", "no-signing", "no-path", "no-root", "constrained", "p384", "expired"],
)
async def test_what_cannot_be_a_root_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Before anything is signed under it."""
    upstream = put(tmp_path, Corporate(**changes))
    with pytest.raises((KeyUnusable, Unavailable), match=words):
        await upstream.root(BEGIN)


async def test_files_that_are_not_what_they_should_be_are_named(tmp_path: Path) -> None:
    """Open to others, of another root, under another passphrase, no PEM, absent: and no secret in the sentence."""
    root = Corporate()
    upstream = put(tmp_path, root, passphrase="correct horse")
    (tmp_path / "passphrase").write_text("battery staple")
    with pytest.raises(KeyUnusable, match="or not with its passphrase") as caught:
        await upstream.root(BEGIN)
    assert "battery" not in repr(caught.value)
    upstream = put(tmp_path, root)
    (tmp_path / "root.key").chmod(0o640)
    with pytest.raises(KeyUnusable, match="mode `0600`"):
        await upstream.root(BEGIN)
    put(tmp_path, Corporate())
    (tmp_path / "root.key").chmod(0o600)
    (tmp_path / "root.pem").write_bytes(root.pem)
    with pytest.raises(KeyUnusable, match="not that of the root's certificate"):
        await upstream.root(BEGIN)
    with pytest.raises(KeyUnusable, match="not among the anchors"):
        await upstream.anchors()
    (tmp_path / "root.pem").write_bytes(root.pem * 2 + Corporate().pem)
    with pytest.raises(KeyUnusable, match="2 certificates"):
        await upstream.root(BEGIN)
    (tmp_path / "root.pem").write_bytes(b"junk")
    with pytest.raises(KeyUnusable, match="in PEM"):
        await upstream.root(BEGIN)
    (tmp_path / "root.pem").unlink()
    with pytest.raises(KeyUnusable, match="no such file"):
        await upstream.root(BEGIN)
