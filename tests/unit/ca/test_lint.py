"""Each rule refuses something that every other rule lets pass, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.util import json_b64encode, urlsafe_b64decode

from ca import lint
from ca.lint import Unfit
from ca.lint.certificate import CA_RULES, X509_RULES
from ca.lint.leaf import LEAF_RULES
from ca.lint.token import JWT_RULES
from ca.profiles import ca_certificate, jwt
from ca.profiles import x509 as profile
from ca.profiles.prepared import MAKER, Issuer, Prepared
from ca.profiles.template import SEQUENCE, certificate, tlv
from ca.spiffe.id import TrustDomain
from ca.spiffe.jose import INSTANCE_CLAIM
from fakes.authority import BEGIN, DOMAIN, INSTANCE, KEY
from fakes.pki import key_usage

SIGNER = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ROOT = ca_certificate.root_issuer(
    SIGNER.public_key(),
    trust_domain=DOMAIN,
    organisation="Sojourn",
    country="",
    ttl=timedelta(days=3650),
    now=BEGIN - timedelta(days=1),
)
LEAF = profile.prepare(
    profile.LeafRequest(
        id=DOMAIN.member("/agent"),
        public_key=KEY,
        instance=INSTANCE,
        ttl=timedelta(hours=1),
        dns_names=("agent.example",),
    ),
    ROOT,
    BEGIN,
)
ISSUING = ca_certificate.prepare_issuing(KEY, ROOT, ttl=timedelta(days=30), now=BEGIN)
OWN_ROOT = ca_certificate.prepare_root(SIGNER.public_key(), ROOT)
TOKEN = jwt.prepare(
    jwt.JwtRequest(id=DOMAIN.member("/agent"), audience=("server",), instance=INSTANCE, ttl=timedelta(minutes=5)),
    ROOT,
    BEGIN,
)


def changed(prepared: Prepared, **facts: Any) -> Prepared:
    """The same with other facts beside the bytes, or other bytes."""
    return Prepared(MAKER, **{**{name: getattr(prepared, name) for name in Prepared.__slots__}, **facts})


def rebuilt(prepared: Prepared, *, hash_: Any = None, extra: Any = (), **odd: Any) -> Prepared:
    """The certificate built again with some parts changed; an extension of None is left out."""
    was = x509.load_der_x509_certificate(certificate(prepared.tbs, b""))
    builder = (
        x509.CertificateBuilder()
        .serial_number(odd.get("serial", was.serial_number))
        .subject_name(odd.get("subject", was.subject))
        .issuer_name(odd.get("issuer", was.issuer))
        .public_key(odd.get("public_key", was.public_key()))
        .not_valid_before(odd.get("begin", was.not_valid_before_utc))
        .not_valid_after(odd.get("end", was.not_valid_after_utc))
    )
    for extension in was.extensions:
        value = odd.get(type(extension.value).__name__, extension.value)
        if value is not None:
            critical = extension.critical != odd.get(f"{type(extension.value).__name__}_turned", False)
            builder = builder.add_extension(value, critical)
    for value in extra:
        builder = builder.add_extension(value, critical=False)
    signed = builder.sign(SIGNER, hash_ or hashes.SHA256())
    return changed(prepared, tbs=signed.tbs_certificate_bytes)


def recoded(header: dict[str, Any] | None = None, /, **claims: Any) -> Prepared:
    """The token with other members; a claim of None is left out."""
    head, body = (json.loads(urlsafe_b64decode(part)) for part in TOKEN.tbs.split(b"."))
    said = {name: value for name, value in {**body, **claims}.items() if value is not None}
    return changed(TOKEN, tbs=json_b64encode({**head, **(header or {})}) + b"." + json_b64encode(said))


def with_claim(instance: str) -> Prepared:
    """The token with another instance in it."""
    return recoded({}, **{INSTANCE_CLAIM: instance})


def names(
    *uris: str, dns: tuple[str, ...] = (), more: tuple[x509.GeneralName, ...] = ()
) -> x509.SubjectAlternativeName:
    """A subject alternative name of all these."""
    return x509.SubjectAlternativeName([*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns), *more])


def without_version(tbs: bytes) -> bytes:
    """The same without its first element, which makes it a certificate of version 1."""
    before, after = tbs.split(b"\xa0\x03\x02\x01\x02", 1)
    assert len(before) == 4
    return tlv(SEQUENCE, after)


def with_dns(*dns: str) -> Prepared:
    """A leaf that was asked to carry these DNS names."""
    return changed(rebuilt(LEAF, SubjectAlternativeName=names(AGENT, dns=dns)), dns_names=dns)


def with_instance(instance: str) -> Prepared:
    """A leaf that was asked to carry this instance."""
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, instance)])
    return changed(rebuilt(LEAF, subject=subject), instance=instance)


AGENT = "spiffe://example.org/agent"
Case = tuple[str, Prepared, Issuer]
SHORT = replace(ROOT, not_after=LEAF.not_after - timedelta(seconds=1))
LATE = replace(ROOT, not_before=LEAF.not_before + timedelta(seconds=1))
FOREIGN = replace(ROOT, trust_domain=TrustDomain.parse("other.org"))
NO_CA, A_CA = (x509.BasicConstraints(ca=ca, path_length=None) for ca in (False, True))
SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
ANY = x509.ExtendedKeyUsage(
    [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    ]
)
PERMITTED = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)
COMMON = x509.Name(
    [
        x509.NameAttribute(NameOID.COMMON_NAME, "postgres"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, INSTANCE),
    ]
)
WEAK = rsa.generate_private_key(65537, 1024).public_key()
SMALL_EXPONENT = rsa.generate_private_key(3, 2048).public_key()


def ski(key: Any) -> x509.SubjectKeyIdentifier:
    """The identifier of this key."""
    return x509.SubjectKeyIdentifier.from_public_key(key)


BAD_DNS = ("*.example", "A.example", "a_b.example", "1.2.3.4", "a..b", "a.", "-a.b", "a" * 64, "a.b." * 80)


def bad_dns(name: str) -> Case:
    """A leaf that was asked to carry what is no host name."""
    return "lower-case", with_dns(name), ROOT


EVERY: dict[str, Callable[[], Case]] = {
    "is_version_3": lambda: ("is not of version 3", changed(LEAF, tbs=without_version(LEAF.tbs)), ROOT),
    "has_its_serial: another": lambda: ("another serial", changed(LEAF, serial=LEAF.serial + 1), ROOT),
    "has_its_serial: short": lambda: ("can be guessed", changed(rebuilt(LEAF, serial=7), serial=7), ROOT),
    "is_signed_with_ecdsa": lambda: ("ECDSA-SHA256", rebuilt(LEAF, hash_=hashes.SHA384()), ROOT),
    "has_its_validity: longer": lambda: (
        "another validity",
        rebuilt(LEAF, end=LEAF.not_after + timedelta(days=1)),
        ROOT,
    ),
    "has_its_validity: none": lambda: (
        "ends before it begins",
        changed(rebuilt(LEAF, begin=LEAF.not_after), not_before=LEAF.not_after),
        ROOT,
    ),
    "lives_within_its_issuer: end": lambda: ("outlive its issuer", LEAF, SHORT),
    "lives_within_its_issuer: begin": lambda: ("begin before its issuer", LEAF, LATE),
    "names_its_issuer: none": lambda: ("its issuer's key", rebuilt(LEAF, AuthorityKeyIdentifier=None), ROOT),
    "names_its_issuer: other key": lambda: ("its issuer's key", LEAF, replace(ROOT, key_id=bytes(20))),
    "names_its_issuer: other fact": lambda: ("another issuer", changed(LEAF, issuer_key_id=bytes(20)), ROOT),
    "names_its_issuer: other name": lambda: ("name its issuer", rebuilt(LEAF, issuer=COMMON), ROOT),
    "names_its_key: none": lambda: ("its own key", rebuilt(LEAF, SubjectKeyIdentifier=None), ROOT),
    "names_its_key: other": lambda: ("its own key", rebuilt(LEAF, SubjectKeyIdentifier=ski(OTHER.public_key())), ROOT),
    "has_one_spiffe_id: none": lambda: ("no subject alt", rebuilt(LEAF, SubjectAlternativeName=None), ROOT),
    "has_one_spiffe_id: two": lambda: (
        "exactly the one",
        rebuilt(LEAF, SubjectAlternativeName=names(AGENT, "spiffe://example.org/sojourn/broker")),
        ROOT,
    ),
    "has_one_spiffe_id: another": lambda: (
        "exactly the one",
        rebuilt(LEAF, SubjectAlternativeName=names("spiffe://example.org/sojourn/broker")),
        ROOT,
    ),
    "has_one_spiffe_id: mail": lambda: (
        "neither URI nor DNS",
        rebuilt(LEAF, SubjectAlternativeName=names(AGENT, more=(x509.RFC822Name("a@b.example"),))),
        ROOT,
    ),
    "has_one_spiffe_id: foreign": lambda: ("not in the trust domain `other.org`", LEAF, FOREIGN),
    "has_no_other_extension": lambda: ("2.5.29.30", rebuilt(ISSUING, extra=[PERMITTED]), ROOT),
}
LEAVES: dict[str, Callable[[], Case]] = {
    "has_a_path": lambda: (
        "no path",
        changed(rebuilt(LEAF, SubjectAlternativeName=names("spiffe://example.org")), subject=DOMAIN.id, dns_names=()),
        ROOT,
    ),
    "is_no_ca: a ca": lambda: ("no authority", rebuilt(LEAF, BasicConstraints=A_CA), ROOT),
    "is_no_ca: silent": lambda: ("no authority", rebuilt(LEAF, BasicConstraints=None), ROOT),
    "is_no_ca: not critical": lambda: ("no authority", rebuilt(LEAF, BasicConstraints_turned=True), ROOT),
    "only_signs: certificates": lambda: (
        "digitalSignature",
        rebuilt(LEAF, KeyUsage=key_usage(frozenset({"digital_signature", "key_cert_sign"}))),
        ROOT,
    ),
    "only_signs: not critical": lambda: ("digitalSignature", rebuilt(LEAF, KeyUsage_turned=True), ROOT),
    "only_signs: silent": lambda: ("digitalSignature", rebuilt(LEAF, KeyUsage=None), ROOT),
    "is_for_both_ends: one": lambda: ("clientAuth", rebuilt(LEAF, ExtendedKeyUsage=SERVER_ONLY), ROOT),
    "is_for_both_ends: any": lambda: ("clientAuth", rebuilt(LEAF, ExtendedKeyUsage=ANY), ROOT),
    "has_an_acceptable_key: weak": lambda: (
        "public key",
        rebuilt(LEAF, public_key=WEAK, SubjectKeyIdentifier=ski(WEAK)),
        ROOT,
    ),
    "has_an_acceptable_key: exponent": lambda: (
        "public key",
        rebuilt(LEAF, public_key=SMALL_EXPONENT, SubjectKeyIdentifier=ski(SMALL_EXPONENT)),
        ROOT,
    ),
    "subject_is_ours: common name": lambda: ("more than country", rebuilt(LEAF, subject=COMMON), ROOT),
    "subject_is_ours: empty": lambda: (
        "not critical",
        changed(rebuilt(LEAF, subject=x509.Name([])), instance=None),
        ROOT,
    ),
    "names_its_instance: other": lambda: ("the instance", changed(LEAF, instance="f" * 32), ROOT),
    "names_its_instance: none": lambda: ("the instance", changed(LEAF, instance=None), ROOT),
    "names_its_instance: form": lambda: ("32 hexadecimal", with_instance("A" * 32), ROOT),
    "has_its_dns_names: other": lambda: ("other DNS names", changed(LEAF, dns_names=()), ROOT),
    "has_its_dns_names: twice": lambda: ("twice", with_dns("a.example", "a.example"), ROOT),
    "has_its_dns_names: many": lambda: ("more than 64", with_dns(*(f"h{n}.example" for n in range(65))), ROOT),
    **{f"has_its_dns_names: {name}": partial(bad_dns, name) for name in BAD_DNS},
}
AUTHORITIES: dict[str, Callable[[], Case]] = {
    "has_no_path: a path": lambda: (
        "trust domain's name",
        changed(rebuilt(ISSUING, SubjectAlternativeName=names(AGENT)), subject=DOMAIN.member("/agent")),
        ROOT,
    ),
    "has_no_path: a dns name": lambda: (
        "trust domain's name",
        rebuilt(ISSUING, SubjectAlternativeName=names("spiffe://example.org", dns=("a.example",))),
        ROOT,
    ),
    "is_a_ca: none": lambda: ("what authority", rebuilt(ISSUING, BasicConstraints=NO_CA), ROOT),
    "is_a_ca: unlimited": lambda: ("what authority", rebuilt(ISSUING, BasicConstraints=A_CA), ROOT),
    "is_a_ca: not critical": lambda: ("what authority", rebuilt(ISSUING, BasicConstraints_turned=True), ROOT),
    "signs_certificates_and_lists": lambda: (
        "cRLSign",
        rebuilt(ISSUING, KeyUsage=key_usage(frozenset({"key_cert_sign"}))),
        ROOT,
    ),
    "is_on_p256": lambda: ("P-256", rebuilt(ISSUING, public_key=WEAK, SubjectKeyIdentifier=ski(WEAK)), ROOT),
    "has_a_name: none": lambda: ("without a name", rebuilt(ISSUING, subject=x509.Name([])), ROOT),
    "has_a_name: root's": lambda: (
        "self-issued",
        rebuilt(ISSUING, subject=x509.Name.from_bytes(ROOT.subject)),
        ROOT,
    ),
    "has_a_name: not its own": lambda: ("self-issued", rebuilt(OWN_ROOT, subject=COMMON), ROOT),
}
TOKENS: dict[str, Callable[[], Case]] = {
    "has_the_header: none": lambda: ("another header", recoded({"alg": "none"}), ROOT),
    "has_the_header: extra": lambda: ("another header", recoded({"jku": "https://evil.example"}), ROOT),
    "has_the_header: kid": lambda: ("another header", recoded({"kid": "other"}), ROOT),
    "has_the_header: fact": lambda: ("another key", changed(TOKEN, issuer_key_id=bytes(20)), ROOT),
    "has_its_subject: other": lambda: ("another subject", recoded(sub="spiffe://example.org/sojourn/broker"), ROOT),
    "has_its_subject: foreign": lambda: ("not in the trust domain", TOKEN, FOREIGN),
    "has_its_subject: domain": lambda: (
        "no member",
        changed(recoded(sub="spiffe://example.org"), subject=DOMAIN.id),
        ROOT,
    ),
    "has_an_audience: other": lambda: ("another audience", recoded(aud=["else"]), ROOT),
    "has_an_audience: text": lambda: ("another audience", recoded(aud="server"), ROOT),
    "has_an_audience: none": lambda: ("1 to 64", changed(recoded(aud=[]), audience=()), ROOT),
    "has_an_audience: twice": lambda: ("1 to 64", changed(recoded(aud=["a", "a"]), audience=("a", "a")), ROOT),
    "has_an_audience: empty": lambda: ("is empty", changed(recoded(aud=[""]), audience=("",)), ROOT),
    "expires_in_time: missing": lambda: ("whole number", recoded(exp=None), ROOT),
    "expires_in_time: text": lambda: ("whole number", recoded(exp="2030"), ROOT),
    "expires_in_time: later": lambda: ("another validity", recoded(exp=2**40), ROOT),
    "expires_in_time: at once": lambda: (
        "expires before",
        changed(recoded(exp=int(BEGIN.astimezone(UTC).timestamp())), not_after=BEGIN),
        ROOT,
    ),
    "expires_in_time: key": lambda: ("outlive its key", TOKEN, replace(ROOT, not_after=BEGIN)),
    "has_its_number: other": lambda: ("another number", recoded(jti="0" * 32), ROOT),
    "has_its_number: small": lambda: ("guessed", changed(recoded(jti=f"{9:032x}"), serial=9), ROOT),
    "claims_its_instance: other": lambda: ("the instance", with_claim("f" * 32), ROOT),
    "claims_its_instance: form": lambda: (
        "32 hexadecimal",
        changed(with_claim("me"), instance="me"),
        ROOT,
    ),
    "has_its_issuer: other": lambda: ("another `iss`", recoded(iss="https://other.example"), ROOT),
    "has_its_issuer: none": lambda: ("another `iss`", TOKEN, replace(ROOT, jwt_issuer="https://ours.example")),
    "has_no_other_claim": lambda: ("the claim `scope`", recoded(scope="admin"), ROOT),
}
BAD = {**EVERY, **LEAVES, **AUTHORITIES, **TOKENS}


@pytest.mark.parametrize(("prepared", "issuer"), [(LEAF, ROOT), (ISSUING, ROOT), (OWN_ROOT, ROOT), (TOKEN, ROOT)])
def test_what_the_profiles_make_passes(prepared: Prepared, issuer: Issuer) -> None:
    """The rules and the profiles agree."""
    lint.check(prepared, issuer)


@pytest.mark.clause(
    "ID-14", "X509-1", "X509-3", "X509-4", "X509-5", "X509-8", "X509-10", "X509-11", "X509-12", "X509-13"
)
@pytest.mark.clause("X509-15", "X509-16", "JWT-2", "JWT-3", "JWT-4", "JWT-5", "JWT-6", "JWT-7")
@pytest.mark.parametrize("name", BAD)
def test_what_a_rule_is_there_for_is_refused(name: str) -> None:
    """By exactly that rule, in its own words."""
    words, prepared, issuer = BAD[name]()
    with pytest.raises(Unfit) as caught:
        lint.check(prepared, issuer)
    assert words in str(caught.value)
    rule = name.partition(":")[0]
    clauses = {each.__name__: clause for clause, each in (*X509_RULES, *LEAF_RULES, *CA_RULES, *JWT_RULES)}
    assert caught.value.details["rule"] == clauses[rule]


@pytest.mark.parametrize(
    ("cases", "table"), [(EVERY, X509_RULES), (LEAVES, LEAF_RULES), (AUTHORITIES, CA_RULES), (TOKENS, JWT_RULES)]
)
def test_every_rule_has_a_case(cases: dict[str, object], table: tuple[tuple[str, Callable[..., object]], ...]) -> None:
    """A rule nobody has seen refuse is no rule."""
    assert {name.partition(":")[0] for name in cases} == {rule.__name__ for _, rule in table}


@pytest.mark.parametrize("tbs", [b"", b"\x30\x00", LEAF.tbs[:-1], LEAF.tbs + b"\x00", bytes(200)])
def test_bytes_that_are_no_certificate_are_refused(tbs: bytes) -> None:
    """What can't be read back is not signed."""
    with pytest.raises(Unfit, match="can't be read back"):
        lint.check(changed(LEAF, tbs=tbs), ROOT)


@pytest.mark.parametrize("tbs", [b"", b".", b"e30", b"e30.e30.e30", b"W10.W10", b"e30.\xff", b"e3.e30="])
def test_bytes_that_are_no_token_are_refused(tbs: bytes) -> None:
    """Header and claims are two JSON objects."""
    with pytest.raises(Unfit):
        lint.check(changed(TOKEN, tbs=tbs), ROOT)
