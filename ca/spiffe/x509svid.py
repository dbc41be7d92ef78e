"""X.509-SVIDs: one's own with its key, and the peer that shows a chain (X509-SVID.md).

The bundle is chosen by the trust domain in the peer's own SPIFFE ID and only its authorities are looked at. A store
in which several domains are pooled would let every federated authority sign IDs of ours (Workload API 4.6, traps 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification

from ca.errors import Malformed
from ca.spiffe import der, leaf
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Revoked, Untrusted
from ca.spiffe.id import SpiffeId
from ca.spiffe.revocation_list import RevocationLists

__all__ = [
    "LONGEST_CHAIN",
    "PrivateKey",
    "Revoked",
    "Untrusted",
    "X509Peer",
    "X509Svid",
    "check_not_revoked",
    "check_still",
    "verify",
]

LONGEST_CHAIN = 8
"""Certificates a peer may show; honest chains have two or three."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_AUTHORITIES = verification.ExtensionPolicy.webpki_defaults_ca()
_LEAVES = verification.ExtensionPolicy.permit_all()  # `leaf.read` judges them; unknown critical ones are still refused


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Peer:
    """Who stands at the other end, proven.

    `chain` is the verified path, the leaf first and the trust anchor last; `not_after` is the earliest in it, so the
    moment from which the peer could no longer prove itself this way. `issuer_key_id` and `serial` name the leaf
    *within its trust domain*: a foreign authority may write any key id it likes (traps 3).
    """

    id: SpiffeId
    instance: str | None
    serial: int
    issuer_key_id: bytes
    not_before: datetime
    not_after: datetime
    chain: tuple[x509.Certificate, ...] = field(repr=False)


def verify(
    chain_der: Sequence[bytes], bundles: BundleSet, now: datetime, revocations: RevocationLists | None = None
) -> X509Peer:
    """Who proves itself by `chain_der` (the leaf first) at the time `now`.

    Raises:
        Untrusted: nobody: the chain can't be read, breaks a rule of X509-SVID.md, or leads to no authority of its own
            trust domain.
        Revoked: it would hold, but a list of `revocations` by its own issuer names it, or an authority on its path.
    """
    chain = _read_chain(chain_der)
    subject = leaf.read(chain[0])
    bundle = bundles.get(subject.id.trust_domain)
    if bundle is None:
        raise Untrusted(f"no bundle is known for the trust domain `{subject.id.trust_domain}` of `{subject.id}`")
    path = _path(chain, bundle, subject.id, now)
    if revocations is not None:
        check_not_revoked(path, subject.id, revocations)
    return X509Peer(
        id=subject.id,
        instance=subject.instance,
        serial=path[0].serial_number,
        issuer_key_id=subject.authority_key_id or der.key_id_of(path[1]),
        not_before=max(certificate.not_valid_before_utc for certificate in path),
        not_after=min(certificate.not_valid_after_utc for certificate in path),
        chain=path,
    )


def check_not_revoked(path: Sequence[x509.Certificate], spiffe_id: SpiffeId, revocations: RevocationLists) -> None:
    """Hold a verified path, as `X509Peer.chain` keeps it, against lists that may be newer. Raises Revoked."""
    found = revocations.revoked(path)
    if found is not None:
        whose = "the certificate" if found is path[0] else "an authority above the certificate"
        raise Revoked(f"{whose} of `{spiffe_id}` is revoked", serial=f"{found.serial_number:x}")


def check_still(peer: X509Peer, bundles: BundleSet, now: datetime, revocations: RevocationLists) -> None:
    """Whether a peer that proved itself could do so again: for each request of a connection that stays open.

    Raises:
        Untrusted: its certificate has expired since, or its authority is no longer in its trust domain's bundle.
        Revoked: a list names it, or an authority on its path, by now.
    """
    if now > peer.not_after:
        raise Untrusted(f"the certificate of `{peer.id}` expired at {peer.not_after:%Y-%m-%dT%H:%M:%SZ}")
    bundle = bundles.get(peer.id.trust_domain)
    if bundle is None or peer.chain[-1] not in bundle.x509_authorities:
        raise Untrusted(f"the authority of `{peer.id}` is no longer one of `{peer.id.trust_domain}`")
    check_not_revoked(peer.chain, peer.id, revocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """One's own identity: the chain to show (the leaf first, no trust anchor) and the key that belongs to it."""

    id: SpiffeId
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    private_key: PrivateKey = field(repr=False)
    instance: str | None
    not_before: datetime
    not_after: datetime
    hint: str = ""

    @classmethod
    def parse(cls, chain_der: bytes, key_pkcs8_der: bytes, hint: str = "") -> X509Svid:
        """Read what the Workload API hands over: concatenated DER, and the key as unencrypted PKCS#8.

        Raises:
            Malformed: not readable, or the key does not belong to the leaf.
            Untrusted: the leaf breaks a rule of X509-SVID.md, so no peer would accept it.
        """
        pieces = der.split(chain_der, "the chain of an X.509-SVID", LONGEST_CHAIN)
        if not pieces:
            raise Malformed("the chain of an X.509-SVID is empty")
        chain = tuple(der.certificate(piece, "the chain of an X.509-SVID") for piece in pieces)
        return cls.of(chain, _private_key(key_pkcs8_der), hint)

    @classmethod
    def of(cls, chain: Sequence[x509.Certificate], private_key: PrivateKey, hint: str = "") -> X509Svid:
        """Put `chain` and its key together. Raises as `parse` does."""
        subject = leaf.read(chain[0])
        if not _belongs(private_key, chain[0]):
            raise Malformed(f"the private key does not belong to the certificate of `{subject.id}`")
        return cls(
            id=subject.id,
            chain=tuple(chain),
            private_key=private_key,
            instance=subject.instance,
            not_before=chain[0].not_valid_before_utc,
            not_after=min(certificate.not_valid_after_utc for certificate in chain),
            hint=hint,
        )

    def chain_pem(self) -> bytes:
        """The chain for a TLS stack."""
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.chain)

    def chain_der(self) -> bytes:
        """The chain as the Workload API carries it."""
        return b"".join(each.public_bytes(serialization.Encoding.DER) for each in self.chain)

    def key_pem(self) -> bytes:
        """The private key, unencrypted: for memory only."""
        return self._key(serialization.Encoding.PEM)

    def key_der(self) -> bytes:
        """The private key as the Workload API carries it: unencrypted PKCS#8, for memory only."""
        return self._key(serialization.Encoding.DER)

    def _key(self, encoding: serialization.Encoding) -> bytes:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.private_key.private_bytes(encoding, form, plain)


def _read_chain(chain_der: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    if not chain_der:
        raise Untrusted("the peer showed no certificate")
    if len(chain_der) > LONGEST_CHAIN:
        raise Untrusted(f"the peer showed more than {LONGEST_CHAIN} certificates")
    try:
        return tuple(der.certificate(each, "the peer's chain") for each in chain_der)
    except Malformed as error:
        raise Untrusted(str(error)) from error


def _path(
    chain: Sequence[x509.Certificate], bundle: Bundle, spiffe_id: SpiffeId, now: datetime
) -> tuple[x509.Certificate, ...]:
    """RFC 5280 path validation, up to an authority of `bundle`."""
    domain = bundle.trust_domain
    if not bundle.x509_authorities:
        raise Untrusted(f"the bundle of `{domain}` has no X.509 authority, so nothing of that domain is trusted")
    _check_times(chain[0], spiffe_id, now)
    builder = verification.PolicyBuilder().store(verification.Store(list(bundle.x509_authorities)))
    builder = builder.time(now.astimezone(UTC)).max_chain_depth(LONGEST_CHAIN)
    verifier = builder.extension_policies(ca_policy=_AUTHORITIES, ee_policy=_LEAVES).build_client_verifier()
    try:
        path = tuple(verifier.verify(chain[0], list(chain[1:])).chain)
    except (verification.VerificationError, ValueError, UnsupportedAlgorithm) as error:
        raise Untrusted(f"the chain of `{spiffe_id}` leads to no authority of `{domain}`: {_reason(error)}") from error
    if len(path) < 2:
        raise Untrusted(
            f"the certificate of `{spiffe_id}` is itself in the bundle of `{domain}`, which holds authorities"
        )
    return path


def _reason(error: Exception) -> str:
    """The library's reason; what it quotes of a hostile certificate must not break a line of the log."""
    return str(error).rpartition("candidates exhausted: ")[2][:200].encode("unicode_escape").decode("ascii")


def _check_times(certificate: x509.Certificate, spiffe_id: SpiffeId, now: datetime) -> None:
    """Say the commonest reason in words an operator understands; path validation would refuse it too."""
    try:
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError as error:
        raise Untrusted(f"the validity of the certificate of `{spiffe_id}` can't be read") from error
    if now > not_after:
        raise Untrusted(f"the certificate of `{spiffe_id}` expired at {not_after:%Y-%m-%dT%H:%M:%SZ}")
    if now < not_before:
        raise Untrusted(f"the certificate of `{spiffe_id}` is not valid before {not_before:%Y-%m-%dT%H:%M:%SZ}")


def _private_key(key_pkcs8_der: bytes) -> PrivateKey:
    try:
        key = serialization.load_der_private_key(key_pkcs8_der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("the private key is not unencrypted PKCS#8 in DER") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Malformed("the private key is neither an elliptic curve nor an RSA key")
    return key


def _belongs(key: PrivateKey, certificate: x509.Certificate) -> bool:
    try:
        return key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
