"""There is one road to a signature: profile, lint, record, key. Whatever comes another way is refused.

Half of this walks our own source, because Python can't hide a name; the other half walks up to the authority with
everything that looks like a `Prepared` and is none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ca
from ca import lint
from ca.errors import Malformed
from ca.keys.memory import MemoryKeyStore
from ca.lint import Unfit
from ca.profiles import ca_certificate, x509
from ca.profiles.prepared import MAKER, Issuer, Prepared
from ca.spiffe.id import SpiffeId
from fakes.authority import BEGIN, DOMAIN, INSTANCE, KEY, WatchedKeyStore, leaf, opened
from fakes.clock import ManualClock

assert ca.__file__ is not None
ROOT = Path(ca.__file__).parents[1]
SOURCES = sorted(file for folder in ("ca", "attestor", "broker") for file in (ROOT / folder).rglob("*.py"))
ISSUER = ca_certificate.root_issuer(
    KEY,
    trust_domain=DOMAIN,
    organisation="Sojourn",
    country="",
    ttl=timedelta(days=30),
    now=BEGIN,
)


def uses(file: Path, *names: str) -> bool:
    """Whether a file's code (not its prose) has one of these names."""
    text = file.read_text()
    if not any(name in text for name in names):
        return False
    found = {getattr(node, part, None) for node in ast.walk(ast.parse(text)) for part in ("id", "attr", "name")}
    return not found.isdisjoint(names)


def calls(file: Path, name: str) -> bool:
    """Whether something of this name is called in a file."""
    if not uses(file, name):
        return False
    called = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return any(name in {getattr(each, "id", None), getattr(each, "attr", None)} for each in called)


def relative(files: Iterator[Path]) -> set[str]:
    """As paths in the repository."""
    return {str(file.relative_to(ROOT)) for file in files}


def test_only_profiles_make_a_prepared() -> None:
    """Its maker's key and its constructor are used nowhere else."""
    profiles = {f"ca/profiles/{name}.py" for name in ("prepared", "x509", "jwt", "wit", "crl", "ca_certificate")}
    assert relative(file for file in SOURCES if uses(file, "MAKER")) == profiles
    assert relative(file for file in SOURCES if calls(file, "Prepared")) == profiles - {"ca/profiles/prepared.py"}


def test_only_the_authority_uses_an_identity_key() -> None:
    """In `ca`, `sign` is called where keys live, where the authority signs, and for the builder's draft.

    Besides these a workload proves by its own key that a WIT-SVID is its own.
    """
    assert relative(file for file in SOURCES if file.is_relative_to(ROOT / "ca") and calls(file, "sign")) == {
        "ca/keys/memory.py",
        "ca/keys/pkcs11.py",
        "ca/keys/token_seal.py",  # an HMAC by a secret that is no identity's
        "ca/authority/signing.py",
        "ca/authority/establish.py",
        "ca/profiles/ca_certificate.py",
        "ca/spiffe/jose.py",
        "ca/spiffe/proof.py",
    }


def test_only_the_authority_asks_for_an_identity_purpose() -> None:
    """No file but the authority's table of purposes names a key that signs identities."""
    purposes = ("SPIFFE_ROOT", "SPIFFE_X509", "SPIFFE_JWT", "SPIFFE_WIT")
    assert relative(file for file in SOURCES if uses(file, *purposes)) == {
        "ca/keys/protocol.py",
        "ca/authority/purposes.py",
    }


def test_nobody_outside_ca_reaches_the_ring_that_holds_the_keys() -> None:
    """The attestor server asks the authority; the ring behind it is for `ca.rotation`."""
    outside = (file for file in SOURCES if not file.is_relative_to(ROOT / "ca"))
    assert relative(file for file in outside if uses(file, "ring", "Ring")) == set()


class Disguised(Prepared):
    """A subclass that would answer anything."""


def forged(honest: Prepared) -> Iterator[Any]:
    """Things that look like what may be signed."""
    facts = {name: getattr(honest, name) for name in Prepared.__slots__}
    yield SimpleNamespace(**facts)
    yield honest.tbs
    yield None
    yield Disguised(MAKER, **facts)


async def test_what_only_looks_prepared_is_not_signed(tmp_path: Path) -> None:
    """Bytes, look-alikes and subclasses reach no key."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, ManualClock(BEGIN)) as authority:
        keys.signed.clear()
        for each in forged(leaf(authority, BEGIN)):
            with pytest.raises(RuntimeError):
                await authority.sign_x509(each)
            with pytest.raises(RuntimeError):
                await authority.sign_jwt(each)
        assert keys.signed == []


async def test_facts_and_bytes_that_differ_are_not_signed(tmp_path: Path) -> None:
    """Even one made by force, with the facts of one leaf and the bytes of another, is refused and not recorded."""
    keys = WatchedKeyStore(MemoryKeyStore())
    async with opened(tmp_path, keys, ManualClock(BEGIN)) as authority:
        honest, wanted = leaf(authority, BEGIN), leaf(authority, BEGIN, id=DOMAIN.member("/sojourn/broker"))
        forced = object.__new__(Prepared)
        for name in Prepared.__slots__:
            object.__setattr__(forced, name, getattr(wanted if name == "tbs" else honest, name))
        keys.signed.clear()
        with pytest.raises(Unfit):
            await authority.sign_x509(forced)
        assert keys.signed == []
        assert not await authority.issued_to(INSTANCE, BEGIN)


@settings(max_examples=300, deadline=None)
@given(
    path=st.text(max_size=30),
    instance=st.none() | st.text(max_size=40) | st.just(INSTANCE),
    dns_names=st.lists(st.text(st.characters(max_codepoint=126), max_size=30), max_size=3).map(tuple),
    ttl=st.timedeltas(timedelta(days=-2), timedelta(days=60)),
    organisation=st.text(max_size=80),
)
def test_whatever_is_asked_the_bytes_say_it_or_are_refused(
    *, path: str, instance: str | None, dns_names: tuple[str, ...], ttl: timedelta, organisation: str
) -> None:
    """No wish, however odd, makes a certificate that says something else than the record."""
    by = Issuer(
        trust_domain=ISSUER.trust_domain,
        key_id=ISSUER.key_id,
        not_before=ISSUER.not_before,
        not_after=ISSUER.not_after,
        subject=ISSUER.subject,
        organisation=organisation,
    )
    request = x509.LeafRequest(
        id=SpiffeId(DOMAIN, path), public_key=KEY, instance=instance, ttl=ttl, dns_names=dns_names
    )
    try:
        prepared = x509.prepare(request, by, BEGIN)
        lint.check(prepared, by)
    except Malformed:
        return
    assert str(SpiffeId.parse(str(prepared.subject))) == str(request.id)
    assert prepared.instance == instance
    assert BEGIN - timedelta(seconds=31) < prepared.not_before < prepared.not_after <= by.not_after
