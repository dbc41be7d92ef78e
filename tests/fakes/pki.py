"""An authority for tests: makes honest SVIDs, and with a word every crooked one.

Keys are made from a seed when one is given, so that vectors stay what they are; certificates are then the same bytes
each time (deterministic ECDSA).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.spiffe.bundle import Bundle
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.x509svid import PrivateKey, X509Svid

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
"""The time in tests that have no clock."""

BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, kw_only=True)
class Oddities:
    """How a leaf differs from an honest one; each default is the honest value."""

    uris: Sequence[str] | None = None
    dns_names: Sequence[str] = ()
    no_names: bool = False
    names_critical: bool | None = None
    subject: x509.Name | None = None
    is_ca: bool | None = False
    key_usages: frozenset[str] | None = frozenset({"digital_signature"})
    key_usage_critical: bool = True
    extended: Sequence[x509.ObjectIdentifier] | None = BOTH_ENDS
    serial: int | None = None
    authority_key_id: bool = True
    extra: Sequence[tuple[x509.ExtensionType, bool]] = ()
    key: ec.EllipticCurvePrivateKey | None = None


def make_key(seed: str | None = None) -> ec.EllipticCurvePrivateKey:
    """A P-256 key; always the same one for the same `seed`."""
    if seed is None:
        return ec.generate_private_key(ec.SECP256R1())
    number = int.from_bytes(hashlib.sha512(seed.encode()).digest(), "big") % (_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


class TestAuthority:
    """A root and an issuing authority of one trust domain."""

    __test__ = False

    def __init__(
        self,
        trust_domain: str | TrustDomain = "example.org",
        *,
        now: datetime = NOON,
        ttl: timedelta = timedelta(days=1),
        seed: str | None = None,
        intermediate: bool = True,
        constraints: x509.NameConstraints | None = None,
        root_extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        path_length: int | None = None,
    ) -> None:
        self.trust_domain = trust_domain if isinstance(trust_domain, TrustDomain) else TrustDomain.parse(trust_domain)
        self.now, self._seed, self._count = now, seed, 0
        self.root_key: PrivateKey = self._key("root")
        extra = [*root_extra, *([(constraints, True)] if constraints else [])]
        self.root = self.authority("root", self.root_key, None, ttl=ttl, extra=extra, path_length=path_length)
        self.issuer_key: PrivateKey = self.root_key
        self.issuer = self.root
        if intermediate:
            self.issuer_key = self._key("issuer")
            self.issuer = self.authority("issuer", self.issuer_key, (self.root, self.root_key), ttl=ttl)
        self.jwt_key, self.jwt_key_id = self._key("jwt"), "jwt-1"

    def leaf(
        self,
        path: str = "/agent",
        *,
        instance: str | None = None,
        ttl: timedelta = timedelta(hours=1),
        now: datetime | None = None,
        hint: str = "",
    ) -> X509Svid:
        """An honest SVID for `path`."""
        key = self._key("leaf")
        certificate = self.certificate(path, instance=instance, ttl=ttl, now=now, odd=Oddities(key=key))
        return X509Svid.of(self.chain(certificate), key, hint)

    def chain(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """The leaf and what a peer needs besides the root."""
        return (certificate,) if self.issuer is self.root else (certificate, self.issuer)

    def certificate(
        self,
        path: str = "/agent",
        *,
        instance: str | None = None,
        ttl: timedelta = timedelta(hours=1),
        now: datetime | None = None,
        odd: Oddities | None = None,
    ) -> x509.Certificate:
        """A leaf as crooked as asked."""
        odd, begin = odd or Oddities(), (now or self.now).replace(microsecond=0)
        key = odd.key or self._key("leaf")
        builder = (
            x509.CertificateBuilder()
            .subject_name(odd.subject if odd.subject is not None else _subject(instance))
            .issuer_name(self.issuer.subject)
            .public_key(key.public_key())
            .serial_number(odd.serial or self._serial())
            .not_valid_before(begin - timedelta(seconds=30))
            .not_valid_after(begin + ttl)
        )
        for value, critical in self._extensions(path, odd, builder_subject=odd.subject, instance=instance):
            builder = builder.add_extension(value, critical)
        return _sign(builder, self.issuer_key)

    def authority(
        self,
        name: str,
        key: PrivateKey,
        by: tuple[x509.Certificate, PrivateKey] | None,
        *,
        ttl: timedelta = timedelta(days=1),
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        is_ca: bool = True,
        key_usages: frozenset[str] = frozenset({"key_cert_sign", "crl_sign"}),
        path_length: int | None = None,
    ) -> x509.Certificate:
        """A CA certificate, signed by itself or `by` another."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of {self.trust_domain}"[:64])])
        issuer, issuer_key = (subject, key) if by is None else (by[0].subject, by[1])
        begin = self.now.replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(self._serial())
            .not_valid_before(begin - timedelta(hours=1))
            .not_valid_after(begin + ttl)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), True)
            .add_extension(key_usage(key_usages), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
            .add_extension(x509.SubjectAlternativeName([_uri(str(self.trust_domain.id))]), False)
        )
        for value, critical in extra:
            builder = builder.add_extension(value, critical)
        return _sign(builder, issuer_key)

    def token(
        self,
        path: str = "/agent",
        audience: str | Sequence[str] = "server",
        *,
        ttl: timedelta = timedelta(minutes=5),
        now: datetime | None = None,
        header: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> str:
        """A JWT-SVID; a claim or header of None is left out."""
        begin = now or self.now
        said = {
            "sub": f"spiffe://{self.trust_domain}{path}",
            "aud": [audience] if isinstance(audience, str) else list(audience),
            "exp": int((begin + ttl).timestamp()),
            "iat": int(begin.timestamp()),
            **(claims or {}),
        }
        head = {"alg": "ES256", "kid": self.jwt_key_id, "typ": "JWT", **(header or {})}
        return sign_token(_without_none(head), _without_none(said), key or self.jwt_key)

    def bundle(self, *, sequence: int | None = 1, refresh_hint: timedelta | None = timedelta(minutes=5)) -> Bundle:
        """What verifies everything this authority signed."""
        return Bundle(
            trust_domain=self.trust_domain,
            x509_authorities=(self.root,),
            jwt_authorities={self.jwt_key_id: self.jwt_key.public_key()},
            sequence=sequence,
            refresh_hint=refresh_hint,
        )

    def id(self, path: str = "/agent") -> SpiffeId:
        """The identity at `path`."""
        return self.trust_domain.member(path)

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        return make_key(None if self._seed is None else f"{self._seed} {self.trust_domain} {name}")

    def _serial(self) -> int:
        self._count += 1
        if self._seed is None:
            return x509.random_serial_number()
        return int.from_bytes(hashlib.sha256(f"{self._seed} {self._count}".encode()).digest()[:15], "big") | 1

    def _extensions(
        self, path: str, odd: Oddities, *, builder_subject: x509.Name | None, instance: str | None
    ) -> list[tuple[x509.ExtensionType, bool]]:
        subject = builder_subject if builder_subject is not None else _subject(instance)
        uris = [f"spiffe://{self.trust_domain}{path}"] if odd.uris is None else odd.uris
        names = [*map(_uri, uris), *map(x509.DNSName, odd.dns_names)]
        critical = not subject.rdns if odd.names_critical is None else odd.names_critical
        found: list[tuple[x509.ExtensionType, bool]] = list(odd.extra)
        if not odd.no_names:
            found.append((x509.SubjectAlternativeName(names), critical))
        if odd.is_ca is not None:
            found.append((x509.BasicConstraints(ca=odd.is_ca, path_length=None), True))
        if odd.key_usages is not None:
            found.append((key_usage(odd.key_usages), odd.key_usage_critical))
        if odd.extended is not None:
            found.append((x509.ExtendedKeyUsage(list(odd.extended)), False))
        if odd.authority_key_id:
            found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issuer_key.public_key()), False))
        return found


@dataclass(frozen=True, kw_only=True)
class SelfSigned:
    """A certificate no SPIFFE authority knows, as an operator's may be."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str, now: datetime, ttl: timedelta = timedelta(hours=1)) -> SelfSigned:
        """Sign one for `name`."""
        key = make_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now.replace(microsecond=0) - timedelta(seconds=30))
            .not_valid_after(now.replace(microsecond=0) + ttl)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        )
        return cls(certificate=builder.sign(key, hashes.SHA256()), key=key)

    def chain_pem(self) -> bytes:
        """The certificate for a TLS stack."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Its key."""
        return pkcs8(self.key, serialization.Encoding.PEM)

    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def der_chain(chain: Sequence[x509.Certificate]) -> list[bytes]:
    """Each certificate in DER, as a TLS stack shows them to a verifier."""
    return [each.public_bytes(serialization.Encoding.DER) for each in chain]


def pkcs8(key: ec.EllipticCurvePrivateKey, encoding: serialization.Encoding = serialization.Encoding.DER) -> bytes:
    """A key in the form the Workload API has it."""
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def key_usage(names: frozenset[str]) -> x509.KeyUsage:
    """A key usage with these bits set."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def sign_token(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, key: ec.EllipticCurvePrivateKey) -> str:
    """A compact JWS (ES256) over any header and any claims: a library would refuse to sign most crooked ones."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{base64url(json.dumps(header).encode())}.{base64url(payload)}"
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return f"{text}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def base64url(data: bytes) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return builder.sign(key, hashes.SHA256())


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _subject(instance: str | None) -> x509.Name:
    return x509.Name([] if instance is None else [x509.NameAttribute(NameOID.SERIAL_NUMBER, instance)])


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)
