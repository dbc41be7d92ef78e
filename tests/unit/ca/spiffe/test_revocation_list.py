"""RFC 5280, 5 as far as we read it: whose list counts for which certificate, and what is no list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Revoked, Untrusted
from ca.spiffe.revocation_list import LONGEST_LIST, MOST_LISTS, RevocationList, RevocationLists
from ca.spiffe.x509svid import X509Peer, check_not_revoked, verify
from fakes.pki import NOON, Oddities, TestAuthority, der_chain, make_key
from fakes.revocations import make_list

OWN = TestAuthority("example.org", seed="lists")
FOREIGN = TestAuthority("foreign.org", seed="lists")
BUNDLES = BundleSet.of(OWN.bundle(), FOREIGN.bundle())
LEAF = OWN.certificate("/agent")
SERIAL = LEAF.serial_number
OWN_KEY_ID = x509.AuthorityKeyIdentifier.from_issuer_public_key(OWN.issuer_key.public_key())


def seen(leaf: x509.Certificate, *lists: bytes, by: TestAuthority = OWN) -> X509Peer:
    """Who shows `leaf` to a verifier that holds these lists."""
    return verify(der_chain(by.chain(leaf)), BUNDLES, NOON, RevocationLists.of(lists))


def test_a_listed_leaf_is_refused_and_says_so() -> None:
    """With a code of its own, and the serial for the log."""
    with pytest.raises(Revoked, match=r"the certificate of `spiffe://example.org/agent` is revoked") as caught:
        seen(LEAF, make_list(OWN, [7, SERIAL]))
    assert caught.value.code == "revoked"
    assert caught.value.details == {"serial": f"{SERIAL:x}"}
    assert isinstance(caught.value, Untrusted)


def test_what_no_list_names_is_let_in() -> None:
    """An empty list, none at all, and one of other serials."""
    for lists in ([], [make_list(OWN)], [make_list(OWN, [SERIAL + 1])]):
        assert seen(LEAF, *lists).serial == SERIAL
    assert verify(der_chain(OWN.chain(LEAF)), BUNDLES, NOON).serial == SERIAL


def test_the_newest_number_of_an_issuer_counts() -> None:
    """In whatever order they come: a leaf taken back later, and one that an older list named."""
    older, newer = make_list(OWN, [1], number=4), make_list(OWN, [SERIAL], number=5)
    for lists in ([older, newer], [newer, older]):
        with pytest.raises(Revoked):
            seen(LEAF, *lists)
    assert seen(LEAF, make_list(OWN, [SERIAL], number=4), make_list(OWN, number=5)).serial == SERIAL


def test_an_authority_in_the_middle_can_be_taken_back() -> None:
    """By the root's list; whatever it signed falls with it."""
    by_root = make_list(OWN, [OWN.issuer.serial_number], signer=(OWN.root, OWN.root_key))
    with pytest.raises(Revoked, match="an authority above the certificate"):
        seen(LEAF, by_root)


def test_a_list_of_another_authority_takes_back_nothing() -> None:
    """Its own leaves with that serial it may take back, ours not."""
    theirs = make_list(FOREIGN, [SERIAL])
    assert seen(LEAF, theirs).serial == SERIAL
    twin = FOREIGN.certificate("/agent", odd=Oddities(serial=SERIAL))
    with pytest.raises(Revoked, match=r"foreign\.org"):
        seen(twin, theirs, by=FOREIGN)
    assert seen(twin, make_list(OWN, [SERIAL]), by=FOREIGN).serial == SERIAL


def test_a_list_signed_by_another_key_takes_back_nothing() -> None:
    """Name and key id are ours, the signature is not."""
    assert seen(LEAF, make_list(OWN, [SERIAL], key=FOREIGN.issuer_key)).serial == SERIAL


def test_a_forged_list_with_a_higher_number_does_not_hide_ours() -> None:
    """Else whoever can hand over one more list could undo every revocation."""
    forged = [make_list(OWN, number=2**64 + n, key=make_key(f"forger {n}")) for n in range(3)]
    with pytest.raises(Revoked):
        seen(LEAF, *forged, make_list(OWN, [SERIAL]))


def test_a_list_for_another_key_of_the_same_name_takes_back_nothing() -> None:
    """An authority of the same name with the next key has serials of its own."""
    other = x509.AuthorityKeyIdentifier.from_issuer_public_key(make_key("next").public_key())
    assert seen(LEAF, make_list(OWN, [SERIAL], key_id=other)).serial == SERIAL


def test_an_authority_without_crl_sign_makes_no_lists() -> None:
    """RFC 5280, 6.3.3 (f)."""
    plain = TestAuthority("example.org", seed="no lists", intermediate=False)
    plain.root = plain.issuer = plain.authority("root", plain.root_key, None, key_usages=frozenset({"key_cert_sign"}))
    leaf = plain.certificate("/agent")
    lists = RevocationLists.of([make_list(plain, [leaf.serial_number])])
    assert verify(der_chain((leaf,)), BundleSet.of(plain.bundle()), NOON, lists).serial == leaf.serial_number


def test_an_overdue_list_still_takes_back_what_it_names() -> None:
    """So does one from the future of a slow clock; being overdue is shown to whoever holds the lists."""
    old = make_list(OWN, [SERIAL], now=NOON - timedelta(days=9))
    for each in (old, make_list(OWN, [SERIAL], now=NOON + timedelta(hours=1))):
        with pytest.raises(Revoked):
            seen(LEAF, each)
    lists = RevocationLists.of([old, make_list(FOREIGN)])
    assert [each.next_update for each in lists.overdue(NOON)] == [NOON - timedelta(days=8)]
    assert len(lists.overdue(NOON + timedelta(days=1))) == 2


def test_a_verified_path_can_be_held_against_newer_lists() -> None:
    """What a connection that is open already does."""
    peer = seen(LEAF)
    check_not_revoked(peer.chain, peer.id, RevocationLists())
    with pytest.raises(Revoked):
        check_not_revoked(peer.chain, peer.id, RevocationLists.of([make_list(OWN, [SERIAL])]))


def test_an_issuer_is_judged_once() -> None:
    """The second handshake finds the same answer, and strangers' issuers push nobody's out for good."""
    lists = RevocationLists.of([make_list(OWN, [SERIAL])])
    first = lists.of_issuer(OWN.issuer)
    assert first is not None
    assert first is lists.of_issuer(OWN.issuer)
    for count in range(100):
        assert lists.of_issuer(OWN.authority(f"made up {count}", OWN.issuer_key, None)) is None
    assert lists.of_issuer(OWN.issuer) is first


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (make_list(OWN, no_key_id=True), "key id"),
        (make_list(OWN, number=None), "number"),
        (make_list(OWN, extra=[(x509.DeltaCRLIndicator(1), True)]), "only some"),
        (
            make_list(
                OWN,
                extra=[(x509.IssuingDistributionPoint(None, None, False, False, None, True, False), True)],
            ),
            "only some",
        ),
        (
            make_list(
                OWN, extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.65980.99"), b"\5\0"), True)]
            ),
            "not known here",
        ),
        (
            make_list(OWN, [1], entry=[(x509.CertificateIssuer([x509.DNSName("foreign.org")]), True)]),
            "more than a serial",
        ),
        (make_list(OWN) + b"\0", "not one"),
        (make_list(OWN) + make_list(OWN), "not one"),
        (make_list(OWN)[:-1], "not one"),
        (make_list(OWN).replace(b"\x02\x01\x01\x30", b"\x02\x01\x02\x30", 1), "not one"),
        (bytes(LONGEST_LIST + 1), "longer than"),
        (b"", "not one"),
        (OWN.root.public_bytes(serialization.Encoding.DER), "not one"),
        (b"-----BEGIN X509 CRL-----\n", "not one"),
    ],
)
def test_what_is_no_whole_list_is_refused(der: bytes, reason: str) -> None:
    """A list that means less, or more, than the serials in it is never half understood."""
    with pytest.raises(Malformed, match=reason):
        RevocationList.parse(der)
    with pytest.raises(Malformed):
        RevocationLists.of([make_list(OWN), der])


def sequence(content: bytes) -> bytes:
    """A DER SEQUENCE."""
    length = len(content)
    size = bytes([length]) if length < 0x80 else bytes([0x82]) + length.to_bytes(2, "big")
    return b"\x30" + (size if length < 0x80 or length > 0xFF else bytes([0x81, length])) + content


def with_inner(change: Callable[[bytes], bytes]) -> bytes:
    """An honest list whose inner part was changed and wrapped again."""
    der = make_list(OWN)
    inner = x509.load_der_x509_crl(der).tbs_certlist_bytes
    rest = der[der.index(inner) + len(inner) :]
    begin = inner.index(b"\x02\x01\x01\x30")
    return sequence(sequence(change(inner[begin:])) + rest)


END = b"\x17\x0d261124120000Z"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda inner: inner[3:], "another version than 2"),
        (lambda inner: inner.replace(END, b""), "no next update"),
        (lambda inner: inner.replace(END, b"\x17\x0d251124120000Z"), "no next update"),
    ],
)
def test_what_the_library_lets_pass_is_refused(change: Callable[[bytes], bytes], reason: str) -> None:
    """Version 1, which has no extensions; a list that never ends (RFC 5280, 5.1.2.5) or ends before it begins."""
    RevocationList.parse(with_inner(bytes))
    der = with_inner(change)
    x509.load_der_x509_crl(der)
    with pytest.raises(Malformed, match=reason):
        RevocationList.parse(der)


def test_an_honest_list_is_read_whole() -> None:
    """Reasons and dates of entries are of no account."""
    reason = x509.CRLReason(x509.ReasonFlags.superseded)
    read = RevocationList.parse(make_list(OWN, [3, 1, 2], number=9, entry=[(reason, False)]))
    assert (read.number, read.serials) == (9, frozenset({1, 2, 3}))
    assert (read.this_update, read.next_update) == (NOON, NOON + timedelta(days=1))
    assert read.issuer == OWN.issuer.subject.public_bytes()
    assert read.issuer_key_id == OWN_KEY_ID.key_identifier
    assert RevocationList.parse(make_list(OWN)).serials == frozenset()


def test_the_number_of_lists_is_bounded() -> None:
    """The same list twice is one."""
    one = make_list(OWN, [1])
    assert len(RevocationLists.of([one] * 1000)) == 1
    with pytest.raises(Malformed, match="more than 256"):
        RevocationLists.of(make_list(OWN, number=n) for n in range(MOST_LISTS + 1))
    assert [each.number for each in RevocationLists.of([make_list(OWN, number=n) for n in (1, 3, 2)])] == [3, 2, 1]


_HONEST = make_list(OWN, [SERIAL])


@given(st.data())
def test_a_changed_byte_never_takes_anything_else_back(data: st.DataObject) -> None:
    """It is refused, or believed by nobody."""
    place = data.draw(st.integers(0, len(_HONEST) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda each: each != _HONEST[place]))
    changed = _HONEST[:place] + bytes([value]) + _HONEST[place + 1 :]
    try:
        read = RevocationLists.of([changed])
    except Malformed:
        return
    assert read.of_issuer(OWN.issuer) is None


@given(st.binary(max_size=400))
def test_bytes_of_strangers_are_malformed_and_nothing_worse(data: bytes) -> None:
    """Whatever they are."""
    with pytest.raises(Malformed):
        RevocationList.parse(data)
