"""Certificates a stranger shows, and whether they lead to a root the operator named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification

from attestor.errors import BadConversation, NotProven
from attestor.methods.node.turns import bytes_of
from ca.errors import Malformed

MOST_CERTIFICATES = 5
"""A leaf and up to four that lead to a root."""
LARGEST_RSA, SMALLEST_RSA = 8192, 2048
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_LEAVES = verification.ExtensionPolicy.permit_all()
_AUTHORITIES = verification.ExtensionPolicy.webpki_defaults_ca()


def load(path: Path) -> list[x509.Certificate]:
    """Those of a PEM file. Raises Malformed."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Malformed(f"`{path}` can't be read: {(error.strerror or 'unknown reason').lower()}") from error
    except ValueError as error:
        raise Malformed(f"`{path}` does not hold certificates in PEM") from error
    return found


def parse(texts: object) -> list[x509.Certificate]:
    """Those of a message; their keys are looked at before one is used. Raises BadConversation, NotProven."""
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_CERTIFICATES:
        raise BadConversation(f"the proof's chain must have 1 to {MOST_CERTIFICATES} certificates")
    try:
        found = [x509.load_der_x509_certificate(bytes_of(one)) for one in texts]
        for one in found:
            one.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadConversation("the proof's chain must be certificates in DER") from error
    for one in found:
        _bounded(one)
    return found


def lead(chain: Sequence[x509.Certificate], roots: Iterable[Path], now: datetime) -> list[x509.Certificate]:
    """The path from the first of `chain` to a certificate of the files `roots`. Raises NotProven, Malformed."""
    anchors = [one for path in roots for one in load(path)]
    builder = verification.PolicyBuilder().store(verification.Store(anchors))
    builder = builder.time(now).max_chain_depth(MOST_CERTIFICATES)
    verifier = builder.extension_policies(ca_policy=_AUTHORITIES, ee_policy=_LEAVES).build_client_verifier()
    try:
        path = verifier.verify(chain[0], list(chain[1:])).chain
    except (verification.VerificationError, ValueError, UnsupportedAlgorithm) as error:
        raise NotProven("the certificate does not lead to a root this server knows, or is not valid now") from error
    if len(path) < 2:
        raise NotProven("a root itself is no machine's certificate")
    return list(path)


def extensions(leaf: x509.Certificate) -> dict[type, object]:
    """By type, of a leaf that is no authority's. Raises NotProven."""
    try:
        found: dict[type, object] = {type(one.value): one.value for one in leaf.extensions}
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotProven("the certificate's extensions can't be read") from error
    constraints = found.get(x509.BasicConstraints)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise NotProven("the certificate is an authority's and stands for no machine")
    return found


def _bounded(one: x509.Certificate) -> None:
    key = one.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        fits = SMALLEST_RSA <= key.key_size <= LARGEST_RSA and key.public_numbers().e.bit_length() <= 32
    else:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES
    if not fits:
        raise NotProven("a key of the chain is neither RSA of 2048 to 8192 bits nor on P-256, P-384 or P-521")


def der(certificate: x509.Certificate) -> bytes:
    """Its bytes."""
    return certificate.public_bytes(serialization.Encoding.DER)


def spki(certificate: x509.Certificate) -> bytes:
    """Its SubjectPublicKeyInfo."""
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()
