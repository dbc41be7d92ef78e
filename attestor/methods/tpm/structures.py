"""What a TPM says, from its bytes: the public area of an attestation key, a quote, a signature.

Read strictly: one form each, nothing left over. The attestation key must be one a TPM made, keeps, and uses for nothing
but what it states itself (fixedTPM, sensitiveDataOrigin, restricted): only then is a quote the TPM's own word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestor.errors import BadConversation, NotProven

PCRS = 24
"""How many registers a bank has."""
ATTESTATION_KEY = 0x00050472
"""TPMA_OBJECT: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign; not decrypt."""
_ECC, _ECDSA, _SHA256, _NULL, _P256 = 0x0023, 0x0018, 0x000B, 0x0010, 0x0003
_GENERATED, _QUOTE = 0xFF544347, 0x8018
_MOST_BANKS = 16


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A restricted signing key on P-256, and its name: what a credential is made for."""

    public_key: ec.EllipticCurvePublicKey
    name: bytes

    @classmethod
    def parse(cls, area: bytes) -> AttestationKey:
        """Read a TPMT_PUBLIC. Raises BadConversation, NotProven when it is another kind of key."""
        said = _Reader(area)
        kind, name_algorithm, attributes, policy = said.number(2), said.number(2), said.number(4), said.sized(0)
        if (kind, name_algorithm, attributes, policy) != (_ECC, _SHA256, ATTESTATION_KEY, b""):
            raise NotProven("the attestation key is none that only a TPM can use, and only for its own statements")
        parameters = tuple(said.number(2) for _ in range(5))
        if parameters != (_NULL, _ECDSA, _SHA256, _P256, _NULL):
            raise NotProven("the attestation key must be on P-256 and sign by ECDSA with SHA-256")
        x, y = (int.from_bytes(said.sized(32), "big") for _ in range(2))
        said.end()
        try:
            key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except ValueError as error:
            raise NotProven("the attestation key is no point of its curve") from error
        return cls(key, _SHA256.to_bytes(2, "big") + hashlib.sha256(area).digest())

    def check(self, statement: bytes, signature: bytes) -> None:
        """Whether `signature` (a TPMT_SIGNATURE) is this key's. Raises NotProven, BadConversation."""
        said = _Reader(signature)
        if (said.number(2), said.number(2)) != (_ECDSA, _SHA256):
            raise NotProven("the quote must be signed by ECDSA with SHA-256")
        r, s = (int.from_bytes(said.sized(32), "big") for _ in range(2))
        said.end()
        try:
            self.public_key.verify(encode_dss_signature(r, s), statement, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise NotProven("the quote is not signed by the attestation key") from error


@dataclass(frozen=True, slots=True)
class Quote:
    """What a TPM says of its registers: whom it answers, which it means, and the digest of their values."""

    extra: bytes
    pcrs: frozenset[int]
    digest: bytes

    @classmethod
    def parse(cls, statement: bytes) -> Quote:
        """Read a TPMS_ATTEST that is a quote of the bank SHA-256. Raises BadConversation, NotProven."""
        said = _Reader(statement)
        if said.number(4) != _GENERATED:
            raise NotProven("the statement was not made by a TPM")
        if said.number(2) != _QUOTE:
            raise NotProven("the statement is no quote")
        said.sized(66)  # the signer's qualified name; the signature says who that is
        extra = said.sized(64)
        said.skip(8 + 4 + 4)  # clock, resets, restarts
        if said.number(1) > 1:
            raise BadConversation("the statement of a TPM holds a truth that is neither yes nor no")
        said.skip(8)  # firmware
        pcrs = _selection(said)
        digest = said.sized(64)
        said.end()
        return cls(extra, pcrs, digest)

    def covers(self, values: Mapping[int, bytes]) -> bool:
        """Whether it was made of exactly these registers with these values."""
        together = b"".join(values[index] for index in sorted(values))
        return self.pcrs == values.keys() and self.digest == hashlib.sha256(together).digest()


def _selection(said: _Reader) -> frozenset[int]:
    """A TPML_PCR_SELECTION: registers of the bank SHA-256 and of no other."""
    found, banks, count = frozenset[int](), set[int](), said.number(4)
    if count > _MOST_BANKS:
        raise BadConversation("the statement of a TPM names more banks than there are")
    for _ in range(count):
        bank, size = said.number(2), said.number(1)
        if bank in banks or size > 4:
            raise BadConversation("the statement of a TPM names its registers in a form there is not")
        banks.add(bank)
        bits = int.from_bytes(said.take(size), "little")
        chosen = frozenset(index for index in range(8 * size) if bits >> index & 1)
        if chosen and bank != _SHA256:
            raise NotProven("the quote is of another bank than SHA-256")
        found |= chosen
    return found


class _Reader:
    """Bytes from front to back. Everything raises BadConversation where there are too few, or too many."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, length: int) -> bytes:
        """The next ones."""
        if self._at + length > len(self._data):
            raise BadConversation("a structure of a TPM is cut short")
        self._at += length
        return self._data[self._at - length : self._at]

    def skip(self, length: int) -> None:
        """Leave some out."""
        self.take(length)

    def number(self, length: int) -> int:
        """Most significant byte first."""
        return int.from_bytes(self.take(length), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B of at most `most` bytes."""
        length = self.number(2)
        if length > most:
            raise BadConversation("a part of a TPM's structure is longer than it can be")
        return self.take(length)

    def end(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise BadConversation("a structure of a TPM has more bytes than it says")
