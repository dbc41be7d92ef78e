"""TPM2_MakeCredential without a TPM: a secret only the TPM with this endorsement key can open, and only for this key.

The TPM opens it (TPM2_ActivateCredential) when it holds the endorsement key *and* an object with exactly that name: so
who knows the secret has an attestation key in the very TPM the endorsement key is of. TCG, TPM 2.0 Library, part 1,
24 (credential protection), B.10.4 (seeds by RSA) and C.6 (by ECC).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestor.errors import NotProven

Kind = Literal["rsa-2048", "p-256", "p-384"]
"""The endorsement keys that are taken, by the templates of the TCG's EK profile: L-1, L-2, H-3."""

EndorsementKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class _Scheme:
    """What its template says of a kind: the digest of its name, and the bits of its symmetric key (AES, CFB)."""

    digest: hashes.HashAlgorithm
    symmetric_bits: int

    @property
    def bits(self) -> int:
        """Of the digest."""
        return self.digest.digest_size * 8


_SCHEMES = MappingProxyType(
    {
        "rsa-2048": _Scheme(hashes.SHA256(), 128),
        "p-256": _Scheme(hashes.SHA256(), 128),
        "p-384": _Scheme(hashes.SHA384(), 256),
    }
)
_CURVES = MappingProxyType({"secp256r1": "p-256", "secp384r1": "p-384"})


@dataclass(frozen=True, slots=True)
class Credential:
    """What is sent: a TPMS_ID_OBJECT, and the encrypted seed it is locked with; both without their own sizes."""

    id_object: bytes
    seed: bytes


def kind_of(key: object) -> str:
    """Of an endorsement key; empty when it is none that is known here."""
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa-2048" if key.key_size == 2048 and key.public_numbers().e == 65537 else ""
    return _CURVES.get(key.curve.name, "") if isinstance(key, ec.EllipticCurvePublicKey) else ""


def make_credential(key: EndorsementKey, name: bytes, secret: bytes) -> Credential:
    """`secret` for whoever has `key` and an object called `name`. Raises NotProven when the key is of no known kind."""
    scheme = _SCHEMES.get(kind_of(key))
    if scheme is None:
        raise NotProven("the endorsement key is neither RSA of 2048 bits nor on P-256 or P-384")
    seed, encrypted = _by_rsa(key, scheme) if isinstance(key, rsa.RSAPublicKey) else _by_ecc(key, scheme)
    symmetric = kdfa(scheme.digest, seed, b"STORAGE", name, b"", scheme.symmetric_bits)
    lock = Cipher(algorithms.AES(symmetric), CFB(bytes(16))).encryptor()
    identity = lock.update(_sized(secret)) + lock.finalize()
    integrity = kdfa(scheme.digest, seed, b"INTEGRITY", b"", b"", scheme.bits)
    return Credential(_sized(hmac.digest(integrity, identity + name, scheme.digest.name)) + identity, encrypted)


def kdfa(digest: hashes.HashAlgorithm, key: bytes, label: bytes, u: bytes, v: bytes, bits: int) -> bytes:  # noqa: PLR0917 - the parameters of the standard
    """Part 1, 11.4.10.2; one block is always enough here."""
    block = (1).to_bytes(4, "big") + label + b"\0" + u + v + bits.to_bytes(4, "big")
    return hmac.digest(key, block, digest.name)[: bits // 8]


def kdfe(digest: hashes.HashAlgorithm, z: bytes, label: bytes, u: bytes, v: bytes) -> bytes:
    """Part 1, 11.4.10.3; as long as the digest."""
    made = hashes.Hash(digest)
    made.update((1).to_bytes(4, "big") + z + label + b"\0" + u + v)
    return made.finalize()


def _by_rsa(key: rsa.RSAPublicKey, scheme: _Scheme) -> tuple[bytes, bytes]:
    seed = secrets.token_bytes(scheme.digest.digest_size)
    oaep = padding.OAEP(padding.MGF1(scheme.digest), scheme.digest, b"IDENTITY\0")
    return seed, key.encrypt(seed, oaep)


def _by_ecc(key: ec.EllipticCurvePublicKey, scheme: _Scheme) -> tuple[bytes, bytes]:
    """An ephemeral key; the seed comes of what it has in common with the endorsement key."""
    size = (key.curve.key_size + 7) // 8
    own = ec.generate_private_key(key.curve)
    x, y = (
        own.public_key().public_numbers().x.to_bytes(size, "big"),
        own.public_key().public_numbers().y.to_bytes(size, "big"),
    )
    common = own.exchange(ec.ECDH(), key)
    theirs = key.public_numbers().x.to_bytes(size, "big")
    return kdfe(scheme.digest, common, b"IDENTITY", x, theirs), _sized(x) + _sized(y)


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data
