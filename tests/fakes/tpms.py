"""Whoever has the private half of an endorsement key: a TPM in this process that says whatever a test wants."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestor.methods.tpm.credential import kdfa

SHA256 = hashes.SHA256()


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data


def public_area(key: ec.EllipticCurvePublicKey, attributes: int = 0x00050472, scheme: int = 0x0018) -> bytes:
    """A TPMT_PUBLIC of an attestation key."""
    numbers = key.public_numbers()
    head = bytes.fromhex("0023000b") + attributes.to_bytes(4, "big") + sized(b"")
    parameters = bytes.fromhex("0010") + scheme.to_bytes(2, "big") + bytes.fromhex("000b00030010")
    return head + parameters + b"".join(sized(one.to_bytes(32, "big")) for one in (numbers.x, numbers.y))


def selection(*pcrs: int, bank: int = 0x000B) -> bytes:
    """A TPML_PCR_SELECTION."""
    if not pcrs:
        return bytes(4)
    bits = sum(1 << one for one in pcrs).to_bytes(3, "little")
    return (1).to_bytes(4, "big") + bank.to_bytes(2, "big") + b"\x03" + bits


@dataclass
class Statement:
    """A TPMS_ATTEST, part by part."""

    extra: bytes
    magic: bytes = bytes.fromhex("ff544347")
    kind: bytes = bytes.fromhex("8018")
    signer: bytes = field(default_factory=lambda: sized(bytes(34)))
    clock: bytes = bytes(16) + b"\x01" + bytes(8)
    selected: bytes = field(default_factory=selection)
    digest: bytes = field(default_factory=lambda: sized(hashlib.sha256(b"").digest()))
    rest: bytes = b""

    def __bytes__(self) -> bytes:
        said = (
            self.magic,
            self.kind,
            self.signer,
            sized(self.extra),
            self.clock,
            self.selected,
            self.digest,
            self.rest,
        )
        return b"".join(said)


class Forged:
    """An endorsement key and an attestation key, both of software."""

    def __init__(self) -> None:
        self.endorsement = rsa.generate_private_key(65537, 2048)
        self.attestation = ec.generate_private_key(ec.SECP256R1())
        self.area = public_area(self.attestation.public_key())

    @property
    def ek(self) -> bytes:
        """A SubjectPublicKeyInfo."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.endorsement.public_key().public_bytes(serialization.Encoding.DER, form)

    def open(self, id_object: bytes, encrypted: bytes) -> bytes:
        """TPM2_ActivateCredential, as a TPM does it."""
        oaep = padding.OAEP(padding.MGF1(SHA256), SHA256, b"IDENTITY\0")
        seed = self.endorsement.decrypt(encrypted, oaep)
        name = b"\x00\x0b" + hashlib.sha256(self.area).digest()
        mac, identity = id_object[2:34], id_object[34:]
        integrity = kdfa(SHA256, seed, b"INTEGRITY", b"", b"", 256)
        assert mac == hmac.digest(integrity, identity + name, "sha256")
        key = kdfa(SHA256, seed, b"STORAGE", name, b"", 128)
        unlock = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        return (unlock.update(identity) + unlock.finalize())[2:]

    def sign(self, statement: bytes) -> bytes:
        """A TPMT_SIGNATURE."""
        numbers = decode_dss_signature(self.attestation.sign(statement, ec.ECDSA(SHA256)))
        return bytes.fromhex("0018000b") + b"".join(sized(one.to_bytes(32, "big")) for one in numbers)
