"""Certificates one after the other in DER, the form in which the Workload API carries chains and bundles."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ca.errors import Malformed

LONGEST_CERTIFICATE = 16 * 1024

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What the library raises for a part of a certificate it can't read, or reads with a warning where those are errors."""

_SEQUENCE = 0x30


def split(data: bytes, what: str, most: int) -> tuple[bytes, ...]:
    """Each certificate's own bytes; nothing may be left over.

    Raises:
        Malformed: not a row of DER sequences, one of them longer than 16 KiB, or more than `most`.
    """
    pieces: list[bytes] = []
    start = 0
    while start < len(data):
        if len(pieces) == most:
            raise Malformed(f"{what} holds more than {most} certificates")
        end = _end(data, start, what)
        pieces.append(data[start:end])
        start = end
    return tuple(pieces)


def certificate(data: bytes, what: str) -> x509.Certificate:
    """One certificate.

    Raises:
        Malformed: these bytes are none.
    """
    if len(data) > LONGEST_CERTIFICATE:
        raise Malformed(f"{what} holds a certificate longer than {LONGEST_CERTIFICATE} bytes")
    try:
        return x509.load_der_x509_certificate(data)
    except UNREADABLE as error:
        raise Malformed(f"{what} holds something that is not a certificate") from error


def key_id_of(issuer: x509.Certificate) -> bytes:
    """How an authority's key is named by what it signs: its subject key id, or the usual hash of its key.

    Raises:
        ValueError, UnsupportedAlgorithm, and whatever else `UNREADABLE` lists: it can't be read.
    """
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest


def _end(data: bytes, start: int, what: str) -> int:
    """Where the DER sequence that begins at `start` ends: tag, then a length of one, two or three bytes."""
    head = data[start : start + 4]
    if len(head) < 2 or head[0] != _SEQUENCE:
        raise Malformed(f"{what} is not a row of DER certificates")
    count = head[1] - 0x80
    if count <= 0:
        end = start + 2 + head[1] if count < 0 else len(data) + 1
    elif count <= 2 and len(head) == 4:
        end = start + 2 + count + int.from_bytes(head[2 : 2 + count], "big")
    else:
        end = len(data) + 1
    if end > len(data):
        raise Malformed(f"{what} is cut off, or holds a certificate longer than {LONGEST_CERTIFICATE} bytes")
    return end
