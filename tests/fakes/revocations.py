"""Makes revocation lists for tests: honest ones, and with a word every crooked one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.spiffe.x509svid import PrivateKey
from fakes.pki import NOON, TestAuthority


def make_list(
    issuer: TestAuthority,
    serials: Iterable[int] = (),
    *,
    number: int | None = 1,
    now: datetime = NOON,
    ttl: timedelta = timedelta(days=1),
    signer: tuple[x509.Certificate, PrivateKey] | None = None,
    key: PrivateKey | None = None,
    key_id: x509.AuthorityKeyIdentifier | None = None,
    no_key_id: bool = False,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    entry: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A list in DER by the issuing authority of `issuer`, or by `signer`; `key` signs in its place."""
    certificate, own_key = signer or (issuer.issuer, issuer.issuer_key)
    builder = x509.CertificateRevocationListBuilder(
        certificate.subject, now, now + ttl, revoked_certificates=[_entry(serial, now, entry) for serial in serials]
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    if not no_key_id:
        named = key_id or x509.AuthorityKeyIdentifier.from_issuer_public_key(own_key.public_key())
        builder = builder.add_extension(named, critical=False)
    for value, critical in extra:
        builder = builder.add_extension(value, critical)
    used = key or own_key
    deterministic = True if isinstance(used, ec.EllipticCurvePrivateKey) else None
    signed = builder.sign(used, hashes.SHA256(), ecdsa_deterministic=deterministic)
    return signed.public_bytes(serialization.Encoding.DER)


def _entry(
    serial: int, now: datetime, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.build()
