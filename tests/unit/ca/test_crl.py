"""Revocation lists as they are prepared: compared with the builder's, and each rule against one that breaks it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca import lint
from ca.lint import Unfit
from ca.lint.revocation_list import LIST_RULES
from ca.profiles import ca_certificate, crl
from ca.profiles.crl import Entry
from ca.profiles.prepared import MAKER, Prepared
from ca.profiles.template import SEQUENCE, certificate, tlv
from ca.spiffe.id import TrustDomain
from ca.spiffe.revocation_list import RevocationList
from fakes.authority import BEGIN, DOMAIN

SIGNER = ec.generate_private_key(ec.SECP256R1())
ISSUER = ca_certificate.root_issuer(
    SIGNER.public_key(), trust_domain=DOMAIN, organisation="Sojourn", country="", ttl=timedelta(days=30), now=BEGIN
)
ENTRIES = (Entry(2**70, BEGIN), Entry(2**80, BEGIN + timedelta(seconds=3)))


def prepared(entries: Sequence[Entry] = ENTRIES, number: int = 7, **changes: Any) -> Prepared:
    """An honest list."""
    honest = {"number": number, "this_update": BEGIN, "next_update": ISSUER.not_after, "entries": entries}
    return crl.prepare(crl.ListRequest(**{**honest, **changes}), ISSUER)


def signed(one: Prepared) -> bytes:
    """In DER."""
    return certificate(one.tbs, SIGNER.sign(one.tbs, ec.ECDSA(hashes.SHA256())))


def built(
    entries: Sequence[Entry] = ENTRIES,
    *,
    number: int | None = 7,
    issuer: x509.Name | None = None,
    times: tuple[datetime, datetime] = (BEGIN, ISSUER.not_after),
    key_id: bytes | None = ISSUER.key_id,
    reason: x509.ReasonFlags | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """The bytes the builder of `cryptography` makes for the same wish, or for a crooked one."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer or x509.Name.from_bytes(ISSUER.subject))
    builder = builder.last_update(times[0]).next_update(times[1])
    if key_id is not None:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for value, critical in extra:
        builder = builder.add_extension(value, critical)
    for each in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.revoked_at)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(SIGNER, hashes.SHA256()).tbs_certlist_bytes


def version_1() -> bytes:
    """A list that says no version, with extensions all the same."""
    tbs = prepared(()).tbs
    assert tbs[1] == 0x81
    assert tbs[3:6] == b"\x02\x01\x01"
    return tlv(SEQUENCE, tbs[6:])


def changed(one: Prepared, **facts: Any) -> Prepared:
    """The same with other facts beside the bytes, or other bytes."""
    return Prepared(MAKER, **{**{name: getattr(one, name) for name in Prepared.__slots__}, **facts})


@given(st.lists(st.integers(1, 2**159 - 1), unique=True, max_size=40), st.integers(1, 2**40), st.integers(0, 10**6))
def test_it_is_byte_for_byte_what_the_builder_makes(serials: list[int], number: int, second: int) -> None:
    """The two know nothing of each other."""
    entries = [Entry(one, BEGIN + timedelta(seconds=second + n)) for n, one in enumerate(sorted(serials))]
    assert prepared(entries, number).tbs == built(entries, number=number)


def test_an_honest_list_is_fit_and_readable() -> None:
    """Written here, read by the verifier's own reader."""
    lint.check(prepared(), ISSUER)
    found = RevocationList.parse(signed(prepared()))
    assert (found.number, sorted(found.serials)) == (7, [2**70, 2**80])
    assert (found.this_update, found.next_update) == (BEGIN, ISSUER.not_after)


def test_an_empty_list_says_nothing_at_all() -> None:
    """The entries are absent and not an empty sequence (RFC 5280, 5.1.2.6)."""
    empty = prepared((), 1)
    lint.check(empty, ISSUER)
    assert empty.tbs == built((), number=1)
    assert RevocationList.parse(signed(empty)).serials == frozenset()


def test_ten_thousand_entries_are_fit() -> None:
    """As many as a bad day has."""
    serials = sorted({secrets.randbits(150) | 1 for _ in range(10_000)})
    many = prepared([Entry(one, BEGIN) for one in serials])
    lint.check(many, ISSUER)
    assert len(RevocationList.parse(signed(many)).serials) == len(serials)


OTHER_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
LATE = ISSUER.not_after + timedelta(days=1)
DELTA = (x509.DeltaCRLIndicator(3), True)
CROOKED: list[tuple[str, Callable[[], Prepared]]] = [
    ("RFC 5280, 5.1.2.1", lambda: changed(prepared(()), tbs=version_1())),
    ("RFC 5280, 5.2.1", lambda: changed(prepared(), tbs=built(key_id=b"x" * 20))),
    ("RFC 5280, 5.2.1", lambda: changed(prepared(), tbs=built(key_id=None))),
    ("RFC 5280, 5.2.1", lambda: changed(prepared(), tbs=built(issuer=OTHER_NAME))),
    ("RFC 5280, 5.2.1", lambda: changed(prepared(), issuer_key_id=b"x" * 20)),
    ("RFC 5280, 5.2.1", lambda: changed(prepared(), subject=TrustDomain.parse("other.org").id)),
    ("RFC 5280, 5.1.2.4", lambda: changed(prepared(), tbs=built(times=(BEGIN, BEGIN + timedelta(hours=1))))),
    ("RFC 5280, 5.1.2.4", lambda: changed(prepared(), tbs=built(times=(BEGIN, LATE)), not_after=LATE)),
    ("RFC 5280, 5.1.2.4", lambda: prepared(next_update=BEGIN)),
    ("RFC 5280, 5.2.3", lambda: changed(prepared(), tbs=built(number=None))),
    ("RFC 5280, 5.2.3", lambda: changed(prepared(), tbs=built(number=8))),
    ("RFC 5280, 5.2.3", lambda: prepared(number=0)),
    ("RFC 5280, 5.2", lambda: changed(prepared(), tbs=built(extra=[DELTA]))),
    ("RFC 5280, 5.3", lambda: changed(prepared(), tbs=built(ENTRIES[:1]))),
    ("RFC 5280, 5.3", lambda: changed(prepared(), revoked=(2**70,))),
    ("RFC 5280, 5.3", lambda: prepared([*ENTRIES, ENTRIES[1]])),
    ("RFC 5280, 5.3", lambda: prepared([ENTRIES[1], ENTRIES[0]])),
    ("RFC 5280, 5.3", lambda: prepared([Entry(0, BEGIN)])),
    ("RFC 5280, 5.3", lambda: changed(prepared(), tbs=built(reason=x509.ReasonFlags.key_compromise))),
]


@pytest.mark.parametrize(("rule", "crooked"), CROOKED)
def test_a_crooked_list_is_refused_by_its_rule(rule: str, crooked: Callable[[], Prepared]) -> None:
    """Nothing else is wrong with it."""
    with pytest.raises(Unfit) as refusal:
        lint.check(crooked(), ISSUER)
    assert refusal.value.details["rule"] == rule


def test_every_rule_has_a_list_that_breaks_it() -> None:
    """A rule without one proves nothing."""
    assert {clause for clause, _ in LIST_RULES} == {rule for rule, _ in CROOKED}


def test_a_key_without_a_name_signs_no_list() -> None:
    """A token's key has no certificate, so nobody could tell whose list it is."""
    with pytest.raises(Unfit, match="does not name its issuer"):
        lint.check(prepared(), replace(ISSUER, subject=b""))


@pytest.mark.parametrize("tbs", [b"", b"\x30\x00", built()[:-1], built() + b"\x00"])
def test_bytes_that_are_no_list_are_refused(tbs: bytes) -> None:
    """They can't be read back."""
    with pytest.raises(Unfit):
        lint.check(changed(prepared(), tbs=tbs), ISSUER)
