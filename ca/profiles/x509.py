"""The X.509-SVID profile: what every leaf of ours looks like (X509-SVID.md 2 to 4, RFC 5280).

subject   C, O as configured; serialNumber = the instance, so that a peer can tell one process from another (traps 3)
SAN       one URI, the SPIFFE ID, then DNS names; critical when the subject is empty
CA:FALSE and digitalSignature, both critical; serverAuth and clientAuth; authority and subject key identifiers
serial    159 random bits, which never name a process
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ca.errors import Malformed
from ca.profiles.prepared import MAKER, Issuer, Kind, Prepared, window
from ca.profiles.template import LeafTemplate
from ca.spiffe.id import SpiffeId

LeafKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
"""The kinds of public key a leaf may be about; which curves and sizes is said in `ca.lint`."""

SERIAL_BITS = 159


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRequest:
    """Who is to be named by a leaf, and for how long."""

    id: SpiffeId
    public_key: LeafKey
    instance: str | None
    ttl: timedelta
    dns_names: tuple[str, ...] = ()


def read_public_key(spki: bytes) -> LeafKey:
    """The public key in a SubjectPublicKeyInfo that somebody sent.

    Raises:
        Malformed: it is none, or of a kind no leaf is made for.
    """
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("this is not a DER SubjectPublicKeyInfo of a known algorithm") from error
    if not isinstance(key, LeafKey):
        raise Malformed("a leaf's public key must be of EC, RSA or Ed25519")
    return key


def prepare(request: LeafRequest, issuer: Issuer, now: datetime) -> Prepared:
    """The leaf for `request`, ready to be signed by `issuer`.

    Raises:
        Malformed: a name can't be written into a certificate.
    """
    if not all(name.isascii() for name in (str(request.id), *request.dns_names)):
        raise Malformed("a SPIFFE ID or DNS name in a certificate must be ASCII")
    begin, end = window(issuer, now, request.ttl)
    serial = new_serial()
    tbs = _template(issuer).fill(
        serial=serial,
        not_before=begin,
        not_after=end,
        instance=request.instance,
        public_key=request.public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        key_id=x509.SubjectKeyIdentifier.from_public_key(request.public_key).digest,
        uri=str(request.id),
        dns_names=request.dns_names,
    )
    return Prepared(
        MAKER,
        kind=Kind.LEAF,
        tbs=tbs,
        subject=request.id,
        serial=serial,
        issuer_key_id=issuer.key_id,
        not_before=begin,
        not_after=end,
        instance=request.instance,
        dns_names=request.dns_names,
    )


def new_serial() -> int:
    """A positive serial number of 159 random bits: 20 octets, the most RFC 5280 allows."""
    return secrets.randbits(SERIAL_BITS) or 1


@lru_cache(maxsize=16)
def _template(issuer: Issuer) -> LeafTemplate:
    return LeafTemplate(
        issuer_subject=issuer.subject,
        issuer_key_id=issuer.key_id,
        country=issuer.country,
        organisation=issuer.organisation,
    )
