"""What of the authorities is shown: their names, the bundle, and what an operator should know of where keys rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.authority.settings import AuthoritySettings
from ca.keys.protocol import KeyStore, SigningKey
from ca.profiles import jwt
from ca.profiles.prepared import Kind
from ca.spiffe import der
from ca.spiffe.bundle import Bundle, PublicKey
from ca.store import Anchor, StoredAuthority


@lru_cache(maxsize=16)
def subject(certificate: bytes) -> bytes:
    """The subject in DER; it is asked for once for each leaf, and is always the same."""
    return x509.load_der_x509_certificate(certificate).subject.public_bytes()


@lru_cache(maxsize=64)
def key_id_of(certificate: bytes) -> bytes:
    """The subject key identifier of a certificate, computed when it does not tell."""
    return der.key_id_of(x509.load_der_x509_certificate(certificate))


def bundle_of(
    settings: AuthoritySettings, authorities: Sequence[StoredAuthority], anchors: Sequence[Anchor], sequence: int
) -> Bundle:
    """What peers have to trust: the authorities of all servers, and the roots that are kept elsewhere."""
    members = [each for each in authorities if each.in_bundle]
    certificates = [each.certificate for each in members if each.certificate is not None]
    certificates += [each.certificate for each in anchors]
    return Bundle(
        trust_domain=settings.trust_domain,
        x509_authorities=tuple(x509.load_der_x509_certificate(each) for each in dict.fromkeys(certificates)),
        jwt_authorities=_token_keys(members, Kind.JWT),
        wit_authorities=_token_keys(members, Kind.WIT),
        sequence=sequence,
        refresh_hint=settings.refresh_hint,
    )


def _token_keys(members: Sequence[StoredAuthority], kind: Kind) -> dict[str, PublicKey]:
    return {
        jwt.kid(each.key_id): cast("PublicKey", serialization.load_der_public_key(each.public_key))
        for each in members
        if each.kind is kind
    }


@lru_cache(maxsize=64)
def spki_of(certificate: bytes) -> bytes:
    """The public key of a certificate, as a SubjectPublicKeyInfo in DER."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki(key: SigningKey) -> bytes:
    """Its public half as a SubjectPublicKeyInfo in DER."""
    return key.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def store_warnings(key_store: KeyStore) -> tuple[str, ...]:
    """What the choice of a key store means."""
    if not key_store.durable:
        return ("the authority's keys are in memory: after a restart there is a new root and every node joins again",)
    if not key_store.sealed:
        return ("the authority's keys rest unsealed, in files only this user may read: configure a sealing key",)
    return ()
