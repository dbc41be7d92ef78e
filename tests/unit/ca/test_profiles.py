"""What the profiles prepare, compared with what other libraries make of the same wishes."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.util import urlsafe_b64decode

from ca.errors import Malformed
from ca.profiles import ca_certificate, jwt
from ca.profiles import x509 as profile
from ca.profiles.prepared import MAKER, Issuer, Kind, Prepared
from ca.profiles.template import certificate, integer, tlv
from ca.spiffe.id import TrustDomain
from fakes.authority import BEGIN, DOMAIN, INSTANCE, KEY
from fakes.pki import key_usage

SIGNER = ec.generate_private_key(ec.SECP256R1())
KEYS = (
    KEY,
    ec.generate_private_key(ec.SECP384R1()).public_key(),
    ed25519.Ed25519PrivateKey.generate().public_key(),
    rsa.generate_private_key(65537, 2048).public_key(),
)


def issuer(**changes: object) -> Issuer:
    """The facts of a root, which can sign anything here."""
    wanted = {"trust_domain": DOMAIN, "organisation": "Sojourn", "country": "", "ttl": timedelta(days=36500)}
    return ca_certificate.root_issuer(SIGNER.public_key(), now=BEGIN, **{**wanted, **changes})  # type: ignore[arg-type]


def built(request: profile.LeafRequest, by: Issuer, prepared: Prepared) -> bytes:
    """The bytes the builder of `cryptography` makes for the same leaf."""
    subject = [(NameOID.COUNTRY_NAME, by.country), (NameOID.ORGANIZATION_NAME, by.organisation)]
    subject += [(NameOID.SERIAL_NUMBER, request.instance or "")]
    names = [x509.UniformResourceIdentifier(str(request.id)), *map(x509.DNSName, request.dns_names)]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject if value])
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        x509.CertificateBuilder()
        .serial_number(prepared.serial)
        .subject_name(name)
        .issuer_name(x509.Name.from_bytes(by.subject))
        .public_key(request.public_key)
        .not_valid_before(prepared.not_before)
        .not_valid_after(prepared.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(frozenset({"digital_signature"})), critical=True)
        .add_extension(both, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(by.key_id, None, None), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=not name.rdns)
        .sign(SIGNER, hashes.SHA256())
        .tbs_certificate_bytes
    )


_SEGMENT = st.text("abcXYZ019._-", min_size=1, max_size=40).filter(lambda text: text not in {".", ".."})


@settings(max_examples=300, deadline=None)
@given(
    segments=st.lists(_SEGMENT, min_size=1, max_size=8),
    instance=st.none() | st.binary(min_size=16, max_size=16).map(bytes.hex),
    dns_names=st.lists(st.from_regex(r"[a-z]{1,20}(\.[a-z]{1,20}){0,3}", fullmatch=True), max_size=12),
    organisation=st.sampled_from(["", "Sojourn", "Säge & Söhne", "x" * 64]),
    country=st.sampled_from(["", "DE"]),
    now=st.timedeltas(timedelta(days=1), timedelta(days=12000)).map(BEGIN.__add__),
    ttl=st.timedeltas(timedelta(seconds=31), timedelta(days=400)),
    key=st.sampled_from(KEYS),
)
def test_the_template_and_the_builder_agree_on_every_byte(
    *,
    segments: list[str],
    instance: str | None,
    dns_names: list[str],
    organisation: str,
    country: str,
    now: datetime,
    ttl: timedelta,
    key: profile.LeafKey,
) -> None:
    """A leaf that was filled in is the leaf that would have been built."""
    request = profile.LeafRequest(
        id=DOMAIN.member("/" + "/".join(segments)),
        public_key=key,
        instance=instance,
        ttl=ttl,
        dns_names=tuple(dns_names),
    )
    by = issuer(organisation=organisation, country=country)
    prepared = profile.prepare(request, by, now)
    assert prepared.tbs == built(request, by, prepared)


@given(st.integers(0, 2**170))
def test_integers_are_der(value: int) -> None:
    """A leading zero exactly when the sign bit would be set."""
    tag, length, *content = integer(value)
    assert (tag, length) == (2, len(content))
    assert int.from_bytes(bytes(content), "big", signed=True) == value
    assert len(content) == 1 or not (content[0] == 0 and content[1] < 0x80)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_der(size: int) -> None:
    """The shortest form of the length, whatever it is."""
    value = tlv(0x04, bytes(size))
    octets = b"" if size < 128 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    assert value == bytes([4, 0x80 | len(octets) if octets else size]) + octets + bytes(size)


def test_a_leaf_begins_half_a_minute_ago_but_not_before_its_issuer() -> None:
    """Peers whose clock is a little behind accept it at once."""
    request = profile.LeafRequest(id=DOMAIN.member("/a"), public_key=KEY, instance=None, ttl=timedelta(hours=1))
    by = issuer()
    later = BEGIN + timedelta(days=1, microseconds=5)
    prepared = profile.prepare(request, by, later)
    assert prepared.not_before == BEGIN + timedelta(days=1, seconds=-30)
    assert prepared.not_after == BEGIN + timedelta(days=1, hours=1)
    assert profile.prepare(request, by, by.not_before).not_before == by.not_before


def test_serials_are_random_and_fit() -> None:
    """159 bits: positive in 20 octets, and never the same."""
    serials = {profile.new_serial() for _ in range(2000)}
    assert len(serials) == 2000
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serial.bit_length() for serial in serials) == 159


def test_a_leafs_key_is_read_as_what_it_is() -> None:
    """EC, RSA and Ed25519 are taken; anything else is refused before it can become a request."""
    for key in KEYS:
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert profile.read_public_key(spki) == key
    others = (dsa.generate_private_key(2048).public_key(), x25519.X25519PrivateKey.generate().public_key())
    for other in others:
        spki = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(Malformed, match="EC, RSA or Ed25519"):
            profile.read_public_key(spki)


@pytest.mark.parametrize("spki", [b"", b"\x30", b"\x30\x00", b"nonsense", bytes(500)])
def test_what_is_no_key_is_malformed(spki: bytes) -> None:
    """Whatever the library says of it."""
    with pytest.raises(Malformed):
        profile.read_public_key(spki)


def test_a_dns_name_beyond_ascii_is_malformed() -> None:
    """It can't be written into a certificate; its owner writes it as `xn--`."""
    request = profile.LeafRequest(
        id=DOMAIN.member("/a"), public_key=KEY, instance=None, ttl=timedelta(hours=1), dns_names=("bücher.example",)
    )
    with pytest.raises(Malformed, match="ASCII"):
        profile.prepare(request, issuer(), BEGIN)


@pytest.mark.clause("ID-11", "X509-5", "X509-6", "X509-8", "X509-10", "X509-11")
def test_root_and_issuing_authority_are_what_spiffe_wants() -> None:
    """The trust domain's ID, CA:TRUE, path length 0 below the root, keyCertSign and cRLSign, no name constraints."""
    own = issuer()
    root = ca_certificate.prepare_root(SIGNER.public_key(), own)
    below = ca_certificate.prepare_issuing(KEY, own, ttl=timedelta(days=30), now=BEGIN)
    for prepared, length in ((root, None), (below, 0)):
        parsed = x509.load_der_x509_certificate(certificate(prepared.tbs, b""))
        extensions = parsed.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.org")]
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=length))
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert (usage.critical, usage.value) == (True, key_usage(frozenset({"key_cert_sign", "crl_sign"})))
        assert ExtensionOID.NAME_CONSTRAINTS not in {extension.oid for extension in extensions}
        assert parsed.issuer.public_bytes() == own.subject
    assert root.subject == below.subject == DOMAIN.id


def test_an_issuing_authority_never_outlives_its_root() -> None:
    """Its life is cut at the root's end."""
    own = issuer(ttl=timedelta(days=10))
    prepared = ca_certificate.prepare_issuing(KEY, own, ttl=timedelta(days=30), now=BEGIN)
    assert prepared.not_after == own.not_after


def test_a_trust_domain_of_255_bytes_can_have_an_authority() -> None:
    """The longest name does not meet the limit of a common name."""
    own = issuer(trust_domain=TrustDomain.parse("a" * 255))
    assert ca_certificate.prepare_root(SIGNER.public_key(), own).subject.trust_domain.name == "a" * 255


@pytest.mark.clause("JWT-3", "JWT-4", "JWT-5", "JWT-6", "JWT-7")
def test_a_token_says_what_was_asked_and_nothing_else() -> None:
    """Header of three, claims of six, `aud` a list."""
    request = jwt.JwtRequest(id=DOMAIN.member("/a"), audience=("x", "y"), instance=INSTANCE, ttl=timedelta(minutes=5))
    prepared = jwt.prepare(request, issuer(), BEGIN)
    header, claims = (json.loads(urlsafe_b64decode(part)) for part in prepared.tbs.split(b"."))
    seconds = int(BEGIN.timestamp())
    assert header == {"alg": "ES256", "kid": prepared.issuer_key_id.hex(), "typ": "JWT"}
    assert claims == {
        "sub": "spiffe://example.org/a",
        "aud": ["x", "y"],
        "iat": seconds,
        "exp": seconds + 300,
        "jti": f"{prepared.serial:032x}",
        "urn:sojourn:instance": INSTANCE,
    }


@given(st.integers(1, 2**255), st.integers(1, 2**255))
def test_a_compact_signature_has_two_halves_of_32_bytes(r: int, s: int) -> None:
    """Short numbers are filled with zeros (RFC 7518, 3.4)."""
    prepared = jwt.prepare(
        jwt.JwtRequest(id=DOMAIN.member("/a"), audience=("x",), instance=None, ttl=timedelta(minutes=5)),
        issuer(),
        BEGIN,
    )
    signature = jwt.compact(prepared, tlv(0x30, integer(r), integer(s))).split(".")[2]
    assert urlsafe_b64decode(signature.encode()) == r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_prepared_is_made_by_a_profile_and_never_changed() -> None:
    """No other maker, no assignment, no copy, no pickle."""
    prepared = ca_certificate.prepare_root(SIGNER.public_key(), issuer())
    facts = {name: getattr(prepared, name) for name in Prepared.__slots__}
    for maker in (None, object(), "MAKER"):
        with pytest.raises(RuntimeError, match=r"ca\.profiles"):
            Prepared(maker, **facts)
    assert Prepared(MAKER, **facts).kind is Kind.ROOT
    with pytest.raises(AttributeError):
        prepared.tbs = b"other"
    with pytest.raises(AttributeError):
        del prepared.tbs
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            take(prepared)
