"""A CA's own certificate: the self-signed root, and an issuing authority under it (X509-SVID.md 3.2, 4).

Both carry the trust domain's SPIFFE ID, which has no path, and keyCertSign with cRLSign from their first day (traps
15); an issuing authority may sign leaves and nothing below (path length 0). There are no URI name constraints: `rustls`
and `cryptography` refuse every chain that has one, and what keeps a foreign authority from naming our members is that
a peer is judged by the bundle of its own trust domain (traps 1).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ca.profiles.prepared import BACKDATE, MAKER, Issuer, Kind, Prepared
from ca.profiles.x509 import new_serial
from ca.spiffe.id import TrustDomain

_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def root_issuer(
    public_key: ec.EllipticCurvePublicKey,
    *,
    trust_domain: TrustDomain,
    organisation: str,
    country: str,
    ttl: timedelta,
    now: datetime,
) -> Issuer:
    """The facts of a root that is to be: it is its own issuer."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key).digest
    begin, end = _window(now, now + ttl)
    return Issuer(
        trust_domain=trust_domain,
        key_id=key_id,
        not_before=begin,
        not_after=end,
        subject=_name("root", key_id, organisation, country).public_bytes(),
        organisation=organisation,
        country=country,
    )


def prepare_root(public_key: ec.EllipticCurvePublicKey, own: Issuer) -> Prepared:
    """A root, to be signed by its own key."""
    return _prepare(
        Kind.ROOT,
        public_key,
        own,
        subject=x509.Name.from_bytes(own.subject),
        validity=(own.not_before, own.not_after),
    )


def prepare_issuing(
    public_key: ec.EllipticCurvePublicKey, issuer: Issuer, *, ttl: timedelta, now: datetime
) -> Prepared:
    """An issuing authority, to be signed by the root `issuer`; it never outlives that root."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key).digest
    name = _name("issuing authority", key_id, issuer.organisation, issuer.country)
    begin, end = _window(now, min(now + ttl, issuer.not_after))
    return _prepare(Kind.ISSUING, public_key, issuer, subject=name, validity=(max(begin, issuer.not_before), end))


def _prepare(
    kind: Kind,
    public_key: ec.EllipticCurvePublicKey,
    issuer: Issuer,
    *,
    subject: x509.Name,
    validity: tuple[datetime, datetime],
) -> Prepared:
    trust_domain = issuer.trust_domain
    serial = new_serial()
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial)
        .subject_name(subject)
        .issuer_name(x509.Name.from_bytes(issuer.subject))
        .public_key(public_key)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if kind is Kind.ISSUING else None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(issuer.key_id, None, None), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(trust_domain.id))]), critical=False
        )
    )
    # The builder shows its bytes only in a signed certificate: a key made for this line signs, and is dropped with
    # its signature.
    draft = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return Prepared(
        MAKER,
        kind=kind,
        tbs=draft.tbs_certificate_bytes,
        subject=trust_domain.id,
        serial=serial,
        issuer_key_id=issuer.key_id,
        not_before=validity[0],
        not_after=validity[1],
    )


def _window(now: datetime, end: datetime) -> tuple[datetime, datetime]:
    return (now - BACKDATE).replace(microsecond=0), end.replace(microsecond=0)


def _name(role: str, key_id: bytes, organisation: str, country: str) -> x509.Name:
    """A name no other authority has: the key's own identifier is in it."""
    attributes = [
        (NameOID.COUNTRY_NAME, country),
        (NameOID.ORGANIZATION_NAME, organisation),
        (NameOID.COMMON_NAME, f"SPIFFE {role}"),
        (NameOID.SERIAL_NUMBER, key_id.hex()),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes if value])
