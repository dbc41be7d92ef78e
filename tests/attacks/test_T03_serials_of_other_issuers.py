"""T3, T15: a serial names a leaf only with the key that gave it; a federated CA may mint and list any of ours."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Revoked
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Peer, verify
from fakes.pki import NOON, Oddities, TestAuthority, der_chain
from fakes.revocations import make_list

OURS = TestAuthority("example.org", seed="serials")
THEIRS = TestAuthority("foreign.org", seed="serials")
BUNDLES = BundleSet.of(OURS.bundle(), THEIRS.bundle())
LEAF = OURS.certificate("/agent")
TWIN = THEIRS.certificate("/agent", odd=Oddities(serial=LEAF.serial_number))


def seen(leaf: x509.Certificate, by: TestAuthority, *lists: bytes) -> X509Peer:
    """Who shows it."""
    return verify(der_chain(by.chain(leaf)), BUNDLES, NOON, RevocationLists.of(lists))


def test_a_peer_is_told_by_its_issuer_and_trust_domain_too() -> None:
    """Two leaves of one serial are two peers."""
    ours, theirs = seen(LEAF, OURS), seen(TWIN, THEIRS)
    assert ours.serial == theirs.serial
    assert ours.issuer_key_id != theirs.issuer_key_id
    assert ours.id != theirs.id


def test_their_list_of_our_serial_takes_back_theirs_only() -> None:
    """In their own name, in ours, with our key id, with a higher number, beside our own or alone."""
    serial = LEAF.serial_number
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(OURS.issuer_key.public_key())
    hostile = [
        make_list(THEIRS, [serial]),
        make_list(THEIRS, [serial], key_id=key_id),
        make_list(THEIRS, [serial], signer=(THEIRS.root, THEIRS.root_key)),
        make_list(OURS, [serial], number=2**100, key=THEIRS.issuer_key),
        make_list(OURS, [serial], number=2**100, signer=(OURS.root, OURS.root_key), key=THEIRS.root_key),
    ]
    for lists in (hostile, [*hostile, make_list(OURS)], [make_list(OURS), *hostile]):
        assert seen(LEAF, OURS, *lists).serial == serial
    with pytest.raises(Revoked, match=r"foreign\.org"):
        seen(TWIN, THEIRS, *hostile)


def test_our_list_of_our_serial_leaves_theirs_alone_and_is_hidden_by_nothing() -> None:
    """Also when theirs say the opposite, louder and later."""
    ours = make_list(OURS, [LEAF.serial_number], number=7)
    empty = [
        make_list(OURS, number=2**100, key=THEIRS.issuer_key),
        make_list(OURS, number=2**100, now=NOON + timedelta(hours=1), key=THEIRS.root_key),
        make_list(THEIRS, number=2**100),
    ]
    for lists in ([ours, *empty], [*empty, ours]):
        with pytest.raises(Revoked, match=r"example\.org"):
            seen(LEAF, OURS, *lists)
        assert seen(TWIN, THEIRS, *lists).serial == LEAF.serial_number


def test_an_older_list_of_ours_does_not_undo_a_newer_one() -> None:
    """Who replays what was true yesterday changes nothing."""
    yesterday = make_list(OURS, number=6, now=NOON - timedelta(days=1))
    with pytest.raises(Revoked):
        seen(LEAF, OURS, yesterday, make_list(OURS, [LEAF.serial_number], number=7))


def test_a_rotated_authority_has_serials_of_its_own() -> None:
    """The next key of the same name may give a number again, and neither list touches the other's leaf."""
    following = TestAuthority("example.org", seed="the next key")
    again = following.certificate("/agent", odd=Oddities(serial=LEAF.serial_number))
    both = Bundle(trust_domain=OURS.trust_domain, x509_authorities=(OURS.root, following.root))
    bundles = BundleSet.of(both)
    lists = RevocationLists.of([make_list(OURS, [LEAF.serial_number]), make_list(following)])
    assert following.issuer.subject == OURS.issuer.subject
    assert verify(der_chain(following.chain(again)), bundles, NOON, lists).serial == LEAF.serial_number
    with pytest.raises(Revoked):
        verify(der_chain(OURS.chain(LEAF)), bundles, NOON, lists)
