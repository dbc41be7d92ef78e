"""The data types of SSH (RFC 4251, section 5), written and read; nothing else is known of them here."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.errors import Malformed

P256 = b"ecdsa-sha2-nistp256"
"""The kind of every key in a key store of ours, and of its signatures (RFC 5656)."""


def number(value: int, size: int) -> bytes:
    """An unsigned number of `size` bytes. Raises OverflowError."""
    return value.to_bytes(size, "big")


def string(value: bytes) -> bytes:
    """Length and bytes."""
    return number(len(value), 4) + value


def mpint(value: int) -> bytes:
    """A whole number that isn't negative, in two's complement without leading zeros it does not need."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """A P-256 key as SSH writes it (RFC 5656, 3.1)."""
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return string(P256) + string(b"nistp256") + string(point)


def signature(der: bytes) -> bytes:
    """An ECDSA signature with SHA-256 as SSH writes it (RFC 5656, 3.1.2); `der` is what a key store gives."""
    r, s = decode_dss_signature(der)
    return string(P256) + string(mpint(r) + mpint(s))


class Reader:
    """Reads one value after the other; what is cut short is Malformed."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self._content) - self._at:
            raise Malformed("an SSH structure is cut off")
        self._at += size
        return self._content[self._at - size : self._at]

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.number(4))
