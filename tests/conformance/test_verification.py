"""Every reason to refuse a peer's certificate, in one table: each row breaks exactly one thing of an honest chain.

Some of them other verifiers let pass: an empty path in a peer's leaf, several URI names, a federated authority in a
pooled store, half of the extended key usage, and whatever was taken back before its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Revoked, Untrusted
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import verify
from fakes.pki import NOON, Oddities, TestAuthority, der_chain
from fakes.revocations import make_list

OURS = TestAuthority("example.org", seed="verification")
FOREIGN = TestAuthority("foreign.org", seed="verification")
IMPOSTOR = TestAuthority("example.org", seed="another world")
BUNDLES = BundleSet.of(OURS.bundle(), FOREIGN.bundle())
PLAIN = OURS.certificate("/agent")
ID = "spiffe://example.org/agent"
Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Row:
    """What is shown, to whom, and the words of the refusal."""

    words: str
    chain: Callable[[], Chain]
    bundles: BundleSet = BUNDLES
    lists: tuple[bytes, ...] = ()
    after: timedelta = field(default=timedelta(0))


def leaf(*, by: TestAuthority = OURS, **odd: Any) -> Callable[[], Chain]:
    """The chain of a leaf with one oddity."""
    return lambda: by.chain(by.certificate("/agent", odd=Oddities(**odd)))


def usage(*names: str) -> frozenset[str]:
    """Key usages."""
    return frozenset(names)


def without(*kinds: str) -> BundleSet:
    """The bundles with less in ours."""
    less = Bundle(trust_domain=OURS.trust_domain, jwt_authorities=OURS.bundle().jwt_authorities)
    return BundleSet.of(FOREIGN.bundle(), *([less] if "x509" in kinds else []))


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.65980.99"), b"\x05\x00")
BY_ROOT = make_list(OURS, [OURS.issuer.serial_number], signer=(OURS.root, OURS.root_key))

ROWS = {
    "an empty path": Row("has no path", leaf(uris=["spiffe://example.org"])),
    "a lonely slash": Row("trailing slash", leaf(uris=["spiffe://example.org/"])),
    "two URI names": Row("2 URI names", leaf(uris=[ID, "spiffe://example.org/other"])),
    "a URI name that is no SPIFFE ID beside it": Row("2 URI names", leaf(uris=[ID, "https://example.org/agent"])),
    "no URI name": Row("0 URI names", leaf(uris=[], dns_names=["agent.example.org"])),
    "another scheme": Row("not a SPIFFE ID", leaf(uris=["https://example.org/agent"])),
    "upper case": Row("not a trust domain", leaf(uris=["spiffe://Example.org/agent"])),
    "names that are not critical": Row("not critical", leaf(names_critical=False)),
    "the flag of an authority": Row("certificate authority", leaf(is_ca=True)),
    "an authority itself": Row("has no path", lambda: (OURS.issuer,)),
    "keyCertSign": Row("keyCertSign", leaf(key_usages=usage("digital_signature", "key_cert_sign"))),
    "cRLSign": Row("cRLSign", leaf(key_usages=usage("digital_signature", "crl_sign"))),
    "no digitalSignature": Row("digitalSignature", leaf(key_usages=usage("key_agreement"))),
    "no key usage": Row("no key usage", leaf(key_usages=None)),
    "a key usage that is not critical": Row("not critical", leaf(key_usage_critical=False)),
    "clientAuth alone": Row("serverAuth and clientAuth", leaf(extended=[ExtendedKeyUsageOID.CLIENT_AUTH])),
    "serverAuth alone": Row("serverAuth and clientAuth", leaf(extended=[ExtendedKeyUsageOID.SERVER_AUTH])),
    "any usage": Row("serverAuth and clientAuth", leaf(extended=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
    "an unknown critical extension": Row("leads to no authority", leaf(extra=[(UNKNOWN, True)])),
    "our name by a federated authority": Row("no authority of `example.org`", leaf(by=FOREIGN, uris=[ID])),
    "our names, other keys": Row("no authority of `example.org`", leaf(by=IMPOSTOR)),
    "a trust domain nobody knows": Row("no bundle is known", leaf(), BundleSet.of(FOREIGN.bundle())),
    "a bundle without X.509 authorities": Row("no X.509 authority", leaf(), without("x509")),
    "the issuer left out": Row("leads to no authority", lambda: (PLAIN,)),
    "an end that has passed": Row("expired at", leaf(), after=timedelta(hours=2)),
    "a beginning that has not come": Row("not valid before", leaf(), after=-timedelta(hours=2)),
    "a leaf taken back": Row("is revoked", lambda: OURS.chain(PLAIN), lists=(make_list(OURS, [PLAIN.serial_number]),)),
    "its authority taken back": Row("an authority above", lambda: OURS.chain(PLAIN), lists=(BY_ROOT,)),
    "nothing": Row("no certificate", lambda: ()),
}


@pytest.mark.clause("X509-1", "X509-3", "X509-8", "X509-10", "X509-12", "X509-13", "X509-15", "X509-17", "X509-18")
@pytest.mark.clause("X509-4", "X509-7", "X509-19", "WL-9")
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_one_thing_that_is_wrong_is_enough(row: Row) -> None:
    """And the sentence says which."""
    with pytest.raises(Untrusted, match=row.words.replace(".", r"\.")) as caught:
        verify(der_chain(row.chain()), row.bundles, NOON + row.after, RevocationLists.of(row.lists))
    assert isinstance(caught.value, Revoked) == bool(row.lists)


def test_the_honest_chain_is_accepted_with_everything_that_may_differ() -> None:
    """So that each row above fails for its own reason."""
    lists = RevocationLists.of([make_list(OURS, [1]), make_list(FOREIGN, [PLAIN.serial_number])])
    may: tuple[dict[str, Any], ...] = (
        {},
        {"dns_names": ["agent.example.org"]},
        {"is_ca": None},
        {"extended": None},
        {"authority_key_id": False},
        {"key_usages": usage("digital_signature", "key_encipherment", "key_agreement")},
        {"extra": [(UNKNOWN, False)]},
    )
    for odd in may:
        assert str(verify(der_chain(leaf(**odd)()), BUNDLES, NOON, lists).id) == ID
    assert verify(der_chain(OURS.chain(PLAIN)), BUNDLES, NOON, lists).serial == PLAIN.serial_number
