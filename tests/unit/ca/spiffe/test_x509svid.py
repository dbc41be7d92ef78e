"""X509-SVID.md, clause by clause: what a leaf must be, and which chain leads to whom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed, Unauthenticated
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.x509svid import LONGEST_CHAIN, PrivateKey, X509Peer, X509Svid, verify
from fakes.pki import NOON, Oddities, TestAuthority, der_chain, make_key, pkcs8

AUTHORITY = TestAuthority(seed="x509")
BUNDLES = BundleSet.of(AUTHORITY.bundle())
INSTANCE = "0123456789abcdef" * 2
AGENT = "spiffe://example.org/agent"


def seen(chain: Sequence[x509.Certificate], bundles: BundleSet = BUNDLES, now: datetime = NOON) -> X509Peer:
    """Who shows this chain."""
    return verify(der_chain(chain), bundles, now)


def refused(chain: Sequence[x509.Certificate], bundles: BundleSet = BUNDLES, now: datetime = NOON) -> str:
    """The sentence with which the chain is refused."""
    with pytest.raises(Untrusted) as caught:
        seen(chain, bundles, now)
    message = str(caught.value)
    assert "\n" not in message
    return message


def odd(oddities: Oddities, path: str = "/agent") -> tuple[x509.Certificate, ...]:
    """The chain of a crooked leaf."""
    return AUTHORITY.chain(AUTHORITY.certificate(path, odd=oddities))


def test_a_peer_is_who_its_leaf_says() -> None:
    """Id, instance, serial, issuer and times are those of the verified path."""
    svid = AUTHORITY.leaf("/agent", instance=INSTANCE)
    peer = seen(svid.chain)
    assert str(peer.id) == AGENT
    assert peer.instance == INSTANCE
    assert peer.serial == svid.chain[0].serial_number
    assert peer.issuer_key_id == x509.SubjectKeyIdentifier.from_public_key(AUTHORITY.issuer_key.public_key()).digest
    assert (peer.not_before, peer.not_after) == (NOON - timedelta(seconds=30), NOON + timedelta(hours=1))
    assert peer.chain == (*svid.chain, AUTHORITY.root)


def test_untrusted_is_a_failed_proof() -> None:
    """Whoever answers requests maps it like any caller who did not prove itself."""
    assert issubclass(Untrusted, Unauthenticated)
    assert Untrusted.code == "untrusted"


def test_x509_1_two_uri_names_are_refused() -> None:
    """Even if both are the same."""
    for uris in ([AGENT, "spiffe://example.org/other"], [AGENT, AGENT], [AGENT, "https://example.org"]):
        assert "2 URI names" in refused(odd(Oddities(uris=uris)))


def test_x509_1_no_uri_name_is_refused() -> None:
    """A DNS name or nothing is no SPIFFE ID."""
    assert "0 URI names" in refused(odd(Oddities(uris=[], dns_names=["example.org"])))
    assert "no subject alternative name" in refused(odd(Oddities(no_names=True)))


def test_x509_2_other_names_beside_the_id_are_legal() -> None:
    """DNS names may stand there too."""
    assert str(seen(odd(Oddities(dns_names=["a.example.org", "b.example.org"]))).id) == AGENT


@pytest.mark.parametrize(
    "uri", ["https://example.org/agent", "spiffe://example.org/a/", "spiffe://Example.org/a", "urn:x"]
)
def test_x509_19_another_scheme_or_a_bad_id_is_refused(uri: str) -> None:
    """The URI name is a SPIFFE ID to the letter."""
    assert "not a SPIFFE ID" in refused(odd(Oddities(uris=[uri])))


def test_x509_3_a_leaf_without_a_path_is_refused() -> None:
    """It would be the trust domain itself (the reference library lets a peer pass here)."""
    assert "no path" in refused(odd(Oddities(uris=["spiffe://example.org"])))


def test_x509_4_names_must_be_critical_without_a_subject() -> None:
    """RFC 5280, 4.1.2.6; with a subject either is fine."""
    assert "not critical" in refused(odd(Oddities(names_critical=False)))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    for critical in (True, False):
        assert str(seen(odd(Oddities(subject=subject, names_critical=critical))).id) == AGENT


@pytest.mark.clause("X509-7", "X509-18")
def test_x509_8_an_authority_is_no_leaf() -> None:
    """A signing certificate must not be used to authenticate, and neither must one that could sign."""
    assert "certificate authority" in refused(odd(Oddities(is_ca=True)))
    assert "no path" in refused([AUTHORITY.issuer])


def test_x509_8_absent_basic_constraints_mean_no_authority() -> None:
    """The default of the extension is cA=FALSE."""
    assert str(seen(odd(Oddities(is_ca=None))).id) == AGENT


@pytest.mark.clause("X509-12")
def test_x509_10_key_usage_must_be_there_critical_and_for_signatures() -> None:
    """Each missing part is a reason of its own."""
    assert "no key usage" in refused(odd(Oddities(key_usages=None)))
    assert "not critical" in refused(odd(Oddities(key_usage_critical=False)))
    assert "digitalSignature" in refused(odd(Oddities(key_usages=frozenset({"key_agreement"}))))


@pytest.mark.clause("X509-18")
@pytest.mark.parametrize("usage", ["key_cert_sign", "crl_sign"])
def test_x509_13_a_leaf_that_may_sign_certificates_or_lists_is_refused(usage: str) -> None:
    """Neither bit may be set, whatever the basic constraints say."""
    assert "keyCertSign" in refused(odd(Oddities(key_usages=frozenset({"digital_signature", usage}))))


def test_x509_14_other_usages_are_legal() -> None:
    """Key encipherment and key agreement may be set."""
    usages = frozenset({"digital_signature", "key_encipherment", "key_agreement"})
    assert str(seen(odd(Oddities(key_usages=usages))).id) == AGENT


def test_x509_15_extended_usage_is_both_or_absent() -> None:
    """One half of it would let an SVID act at one end only."""
    assert str(seen(odd(Oddities(extended=None))).id) == AGENT
    both = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH)
    assert str(seen(odd(Oddities(extended=both))).id) == AGENT
    for half in (both[:1], both[2:], both[1:2], (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)):
        assert "serverAuth and clientAuth" in refused(odd(Oddities(extended=half)))


def test_x509_17_an_unknown_critical_extension_is_refused() -> None:
    """RFC 5280: what is critical and not understood means no."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.65980.99"), b"\x05\x00")
    assert "critical" in refused(odd(Oddities(extra=[(unknown, True)])))
    assert str(seen(odd(Oddities(extra=[(unknown, False)]))).id) == AGENT


def test_x509_17_a_chain_is_valid_only_in_its_time() -> None:
    """From the leaf's first second to its last, and no longer than any issuer."""
    chain = AUTHORITY.leaf(ttl=timedelta(hours=1)).chain
    assert "expired" in refused(chain, now=NOON + timedelta(hours=1, seconds=1))
    assert "not valid before" in refused(chain, now=NOON - timedelta(seconds=31))
    seen(chain, now=NOON + timedelta(hours=1))
    long = AUTHORITY.leaf(ttl=timedelta(days=9)).chain
    assert seen(long).not_after == NOON + timedelta(days=1)
    refused(long, now=NOON + timedelta(days=1, seconds=1))


def test_x509_17_time_zones_do_not_matter() -> None:
    """The same instant in another zone is the same instant."""
    there = NOON.astimezone(timezone(timedelta(hours=-11)))
    assert seen(AUTHORITY.leaf().chain, now=there).id == seen(AUTHORITY.leaf().chain, now=NOON.astimezone(UTC)).id


def test_x509_17_every_link_must_be_shown() -> None:
    """The issuer can't be guessed; the root need not be shown but may be."""
    chain = AUTHORITY.leaf().chain
    refused(chain[:1])
    seen([*chain, AUTHORITY.root])
    seen([chain[0], AUTHORITY.root, chain[1]])


@pytest.mark.clause("X509-8", "X509-11")
def test_x509_17_an_issuer_that_is_no_authority_signs_nothing() -> None:
    """A workload can't issue: not with its own SVID, not with a CA without keyCertSign, not past a path length."""
    svid = AUTHORITY.leaf("/evil")
    child = TestAuthority(seed="child", intermediate=False)
    child.issuer, child.issuer_key = svid.chain[0], svid.private_key
    refused([child.certificate("/agent"), *svid.chain])
    for changes in ({"is_ca": False}, {"key_usages": frozenset({"digital_signature"})}):
        fake = TestAuthority(seed="fake")
        link = (AUTHORITY.root, AUTHORITY.root_key)
        fake.issuer = AUTHORITY.authority("fake", fake.issuer_key, link, **changes)
        refused(fake.chain(fake.certificate("/agent")))


@pytest.mark.clause("X509-9")
def test_x509_17_a_path_length_is_kept() -> None:
    """A root that allows no issuer below it has none."""
    short = TestAuthority(path_length=0)
    refused(short.leaf().chain, BundleSet.of(short.bundle()))


def test_x509_17_uri_name_constraints_are_refused_not_ignored() -> None:
    """Traps 1: this verifier can't judge them, so a chain under one leads nowhere; nothing here relies on them."""
    permitted = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)
    constrained = TestAuthority(constraints=permitted)
    assert "constraint" in refused(constrained.leaf().chain, BundleSet.of(constrained.bundle()))


def test_x509_17_weak_keys_are_refused() -> None:
    """An issuer with a short RSA key or a curve outside the agreed ones leads nowhere."""
    keys: list[PrivateKey] = [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ]
    for key in keys:
        weak = TestAuthority(intermediate=False)
        weak.root_key = weak.issuer_key = key
        weak.root = weak.issuer = weak.authority("root", key, None)
        refused([weak.certificate()], BundleSet.of(weak.bundle()))


def test_wl_9_only_the_bundle_of_the_peers_own_domain_is_looked_at() -> None:
    """A federated authority that signs an ID of ours is refused although its own bundle is known."""
    foreign = TestAuthority("foreign.org")
    both = BundleSet.of(AUTHORITY.bundle(), foreign.bundle())
    honest = foreign.leaf("/agent").chain
    assert str(seen(honest, both).id) == "spiffe://foreign.org/agent"
    forged = foreign.chain(foreign.certificate(odd=Oddities(uris=[AGENT])))
    assert "no authority of `example.org`" in refused(forged, both)
    assert "no authority of `example.org`" in refused([forged[0], *AUTHORITY.leaf().chain], both)
    assert "no bundle" in refused(honest, BUNDLES)
    assert "no bundle" in refused(honest, BundleSet())


def test_wl_9_an_impostor_with_the_same_names_is_refused() -> None:
    """Same domain, same subject names, other keys: the signature decides."""
    refused(TestAuthority("example.org").leaf().chain)


def test_a_leaf_is_never_its_own_anchor() -> None:
    """Path validation would stop at a leaf that lies in the store; no bundle can hold one."""
    with pytest.raises(Malformed, match="no authority"):
        Bundle(trust_domain=AUTHORITY.trust_domain, x509_authorities=AUTHORITY.leaf().chain[:1])


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ([INSTANCE], INSTANCE),
        ([INSTANCE.upper()], None),
        ([INSTANCE + "0"], None),
        ([INSTANCE[:-1]], None),
        ([INSTANCE[:-1] + "g"], None),
        ([INSTANCE, INSTANCE], None),
        ([], None),
    ],
)
def test_trap_3_an_instance_is_32_hex_digits_in_the_subject(subject: list[str], expected: str | None) -> None:
    """Anything else names no instance."""
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, each) for each in [*subject]])
    assert seen(odd(Oddities(subject=name))).instance == expected


def test_the_issuer_is_known_even_when_the_leaf_does_not_name_it() -> None:
    """Some authorities leave the authority key identifier out."""
    peer = seen(odd(Oddities(authority_key_id=False)))
    assert peer.issuer_key_id == x509.SubjectKeyIdentifier.from_public_key(AUTHORITY.issuer_key.public_key()).digest


def test_nothing_shown_and_too_much_shown_are_refused() -> None:
    """No certificate, more than anybody needs, or one of monstrous size."""
    assert "no certificate" in refused([])
    assert "more than" in refused([*AUTHORITY.leaf().chain] * LONGEST_CHAIN)
    with pytest.raises(Untrusted, match="longer"):
        verify([bytes(20_000)], BUNDLES, NOON)


def test_what_a_certificate_says_can_not_break_a_line_of_the_log() -> None:
    """A hostile subject or name is escaped wherever it is quoted."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\nFAKE LINE")])
    refused([AUTHORITY.certificate(odd=Oddities(subject=subject))])
    refused(odd(Oddities(uris=["spiffe://example.org/a\nb"])))


@pytest.mark.clause("WL-21")
def test_an_svid_is_read_from_what_the_workload_api_hands_over() -> None:
    """Concatenated DER and PKCS#8; written again it is the same."""
    svid = AUTHORITY.leaf("/agent", instance=INSTANCE, hint="main")
    read = X509Svid.parse(svid.chain_der(), svid.key_der(), "main")
    assert (read.id, read.instance, read.hint, read.chain) == (svid.id, INSTANCE, "main", svid.chain)
    assert (read.chain_pem(), read.key_pem()) == (svid.chain_pem(), svid.key_pem())
    assert read.not_after == NOON + timedelta(hours=1)
    assert x509.load_pem_x509_certificates(read.chain_pem()) == list(svid.chain)


def test_law_4_a_key_is_in_no_repr() -> None:
    """Neither the key object nor its bytes."""
    assert "key" not in repr(AUTHORITY.leaf()).lower()


@pytest.mark.parametrize(
    "key", [b"", b"x", pkcs8(make_key()), ed25519.Ed25519PrivateKey.generate().private_bytes_raw()]
)
def test_an_svid_with_another_key_is_malformed(key: bytes) -> None:
    """The key belongs to the leaf or there is no SVID."""
    with pytest.raises(Malformed, match="key"):
        X509Svid.parse(AUTHORITY.leaf().chain_der(), key)


@pytest.mark.clause("WL-21")
def test_an_svid_with_an_encrypted_or_odd_key_is_malformed() -> None:
    """Only unencrypted elliptic curve and RSA keys come out of a Workload API."""
    secret = serialization.BestAvailableEncryption(b"x")
    locked = make_key().private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, secret)
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for key in (locked, edwards):
        with pytest.raises(Malformed, match="key"):
            X509Svid.parse(AUTHORITY.leaf().chain_der(), key)


def test_an_svid_with_an_rsa_key_is_fine() -> None:
    """Other issuers hand those out."""
    key = rsa.generate_private_key(65537, 2048)
    begin = NOON - timedelta(minutes=1)
    template = AUTHORITY.certificate()
    builder = x509.CertificateBuilder(
        issuer_name=AUTHORITY.issuer.subject,
        subject_name=x509.Name([]),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=begin,
        not_valid_after=begin + timedelta(hours=1),
    )
    for each in template.extensions:
        builder = builder.add_extension(each.value, each.critical)
    chain = AUTHORITY.chain(builder.sign(AUTHORITY.issuer_key, hashes.SHA256()))
    svid = X509Svid.of(chain, key)
    assert X509Svid.parse(svid.chain_der(), svid.key_der()).id == seen(chain).id


def test_an_svid_nobody_would_accept_is_not_taken() -> None:
    """A client hears at once that its issuer is crooked."""
    key = make_key()
    for crooked in (Oddities(key=key, is_ca=True), Oddities(key=key, uris=["spiffe://example.org"])):
        chain = odd(crooked)
        with pytest.raises(Untrusted):
            X509Svid.parse(b"".join(der_chain(chain)), pkcs8(key))
    with pytest.raises(Malformed, match="empty"):
        X509Svid.parse(b"", pkcs8(key))


@given(st.lists(st.binary(max_size=200) | st.sampled_from(der_chain(AUTHORITY.leaf().chain)), max_size=10))
def test_any_bytes_are_a_peer_or_untrusted(chain: list[bytes]) -> None:
    """No other exception, whatever a peer shows."""
    try:
        assert str(verify(chain, BUNDLES, NOON).id) == AGENT
    except Untrusted:
        return


_CHAIN = der_chain(AUTHORITY.leaf().chain)


@given(st.integers(0, len(_CHAIN[0]) - 1), st.integers(0, 255), st.sampled_from(["set", "cut", "insert", "delete"]))
def test_a_damaged_leaf_is_untrusted(position: int, byte: int, damage: str) -> None:
    """Any byte set, removed, added or cut: never another identity, never another exception."""
    good = _CHAIN[0]
    tail = {"set": 1, "cut": len(good), "insert": 0, "delete": 1}[damage]
    middle = bytes([byte]) if damage in {"set", "insert"} else b""
    bad = good[:position] + middle + good[position + tail :]
    try:
        verify([bad, *_CHAIN[1:]], BUNDLES, NOON)
    except Untrusted:
        return
    signed = [x509.load_der_x509_certificate(each).tbs_certificate_bytes for each in (bad, good)]
    assert signed[0] == signed[1]


def test_a_certificate_of_no_known_version_is_untrusted() -> None:
    """The library has an exception of its own for it."""
    version = _CHAIN[0].index(b"\xa0\x03\x02\x01\x02") + 4
    for value in (0, 1, 22):
        with pytest.raises(Untrusted):
            verify([_CHAIN[0][:version] + bytes([value]) + _CHAIN[0][version + 1 :], *_CHAIN[1:]], BUNDLES, NOON)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_bytes_are_an_svid_or_malformed(chain: bytes, key: bytes) -> None:
    """What a broken Workload API sends never ends a client with a surprise."""
    with pytest.raises((Malformed, Untrusted)):
        X509Svid.parse(chain, key)
