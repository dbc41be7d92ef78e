"""A leaf's DER, filled in and not built.

Of the bytes of a leaf only the serial, the dates, the instance, the public key and the names differ; everything else
is the same for all leaves of one issuer and is written once. That is two to three times as fast as the builder of
`cryptography`; a test compares the two byte for byte. This module knows DER and nothing of SPIFFE; what it writes is
read again by another parser in `ca.lint` before anybody signs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

SEQUENCE, SET = 0x30, 0x31
BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT = 0x01, 0x02, 0x03, 0x04, 0x06
UTF8, PRINTABLE, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x17, 0x18

_URI, _DNS = 0x86, 0x82  # context tags of GeneralName
_KEY_ID = 0x80  # the key identifier inside an AuthorityKeyIdentifier
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # context tags of TBSCertificate

_COUNTRY, _ORGANISATION, _SERIAL_NUMBER = b"\x55\x04\x06", b"\x55\x04\x0a", b"\x55\x04\x05"
_SUBJECT_KEY, _KEY_USAGE, _ALT_NAME, _BASIC, _AUTHORITY_KEY, _EXTENDED = (
    bytes((0x55, 0x1D, last)) for last in (14, 15, 17, 19, 35, 37)
)
_ECDSA_SHA256 = b"\x2a\x86\x48\xce\x3d\x04\x03\x02"
_SERVER_AUTH, _CLIENT_AUTH = (b"\x2b\x06\x01\x05\x05\x07\x03" + last for last in (b"\x01", b"\x02"))
_SHORT = 0x80  # lengths below it take one byte
_UTC_UNTIL = 2050  # RFC 5280, 4.1.2.5


def tlv(tag: int, *parts: bytes) -> bytes:
    """One DER value: tag, length, the parts one after the other."""
    content = b"".join(parts)
    length = len(content)
    if length < _SHORT:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT | len(size))) + size + content


def integer(value: int) -> bytes:
    """A non-negative INTEGER."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def moment(value: datetime) -> bytes:
    """A time in UTC, in the form RFC 5280 wants for its year."""
    if value.year < _UTC_UNTIL:
        return tlv(UTC_TIME, value.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(GENERALIZED_TIME, value.strftime("%Y%m%d%H%M%SZ").encode())


ALGORITHM = tlv(SEQUENCE, tlv(OBJECT, _ECDSA_SHA256))
"""ECDSA with SHA-256, as it stands in front of and behind what is signed (RFC 5758, 3.2)."""
_VERSION_3 = tlv(_VERSION, integer(2))


def certificate(tbs: bytes, signature: bytes) -> bytes:
    """The certificate of `tbs` with an ECDSA-SHA256 `signature`."""
    return tlv(SEQUENCE, tbs, ALGORITHM, tlv(BIT_STRING, b"\x00", signature))


def authority_key(key_id: bytes) -> bytes:
    """The extension that names the issuer's key (RFC 5280, 4.2.1.1)."""
    return extension(_AUTHORITY_KEY, tlv(SEQUENCE, tlv(_KEY_ID, key_id)))


def begins_with(tbs: bytes, serial: int) -> bool:
    """Whether `tbs` begins as all of ours do: version 3, this serial, ECDSA-SHA256."""
    header = 2 if len(tbs) < 2 or tbs[1] < _SHORT else 2 + (tbs[1] & ~_SHORT)
    return tbs[header:].startswith(_VERSION_3 + integer(serial) + ALGORITHM)


class LeafTemplate:
    """The leaf of one issuer, with holes."""

    __slots__ = ("_after_issuer", "_fixed_extensions", "_subject")

    def __init__(self, *, issuer_subject: bytes, issuer_key_id: bytes, country: str, organisation: str) -> None:
        self._after_issuer = ALGORITHM + issuer_subject
        self._subject = b"".join(
            (
                _attribute(_COUNTRY, PRINTABLE, country) if country else b"",
                _attribute(_ORGANISATION, UTF8, organisation) if organisation else b"",
            )
        )
        self._fixed_extensions = b"".join(
            (
                extension(_BASIC, tlv(SEQUENCE), critical=True),
                extension(_KEY_USAGE, tlv(BIT_STRING, b"\x07\x80"), critical=True),  # digitalSignature
                extension(_EXTENDED, tlv(SEQUENCE, tlv(OBJECT, _SERVER_AUTH), tlv(OBJECT, _CLIENT_AUTH))),
                authority_key(issuer_key_id),
            )
        )

    def fill(
        self,
        *,
        serial: int,
        not_before: datetime,
        not_after: datetime,
        instance: str | None,
        public_key: bytes,
        key_id: bytes,
        uri: str,
        dns_names: Sequence[str],
    ) -> bytes:
        """The bytes to be signed; `public_key` is a SubjectPublicKeyInfo."""
        subject = self._subject + (_attribute(_SERIAL_NUMBER, PRINTABLE, instance) if instance else b"")
        names = tlv(SEQUENCE, tlv(_URI, uri.encode("ascii")), *(tlv(_DNS, name.encode("ascii")) for name in dns_names))
        extensions = tlv(
            SEQUENCE,
            self._fixed_extensions,
            extension(_SUBJECT_KEY, tlv(OCTET_STRING, key_id)),
            extension(_ALT_NAME, names, critical=not subject),  # RFC 5280, 4.2.1.6
        )
        return tlv(
            SEQUENCE,
            _VERSION_3,
            integer(serial),
            self._after_issuer,
            tlv(SEQUENCE, moment(not_before), moment(not_after)),
            tlv(SEQUENCE, subject),
            public_key,
            tlv(_EXTENSIONS, extensions),
        )


def _attribute(kind: bytes, tag: int, value: str) -> bytes:
    return tlv(SET, tlv(SEQUENCE, tlv(OBJECT, kind), tlv(tag, value.encode())))


def extension(kind: bytes, value: bytes, *, critical: bool = False) -> bytes:
    """One extension; `kind` is its object identifier without tag and length."""
    return tlv(SEQUENCE, tlv(OBJECT, kind), tlv(BOOLEAN, b"\xff") if critical else b"", tlv(OCTET_STRING, value))
