"""Client certificates of one target's own CA: the name is the role, and the end is written into it (traps 24).

The CA's key is one of the broker's own, made at first use for this target and this purpose, and it is no identity's:
were it the SPIFFE authority, an SVID with `CN=postgres` would be the superuser. Its certificate is not kept. Everything
in it follows from the key, so one that is made anew is believed wherever an earlier one was installed. It has no end:
whoever stops trusting it takes it out of the server's file.

A leaf signs nothing but client logins, ends with its lease, and its key is made here, handed over once and forgotten.
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.errors import Unavailable
from ca.keys.protocol import KeyStore, Purpose, SigningKey, load_or_create
from ca.runtime.secret import Secret

MARKER = "sojourn_cert"
"""The group of every role that logs in by certificate: what `pg_hba.conf` tells them by."""

BACKDATE = timedelta(seconds=60)
"""How far before its making a certificate begins: a standby's clock may be a little behind."""

_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, 4.1.2.5: no end is known
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_VERSION_3 = bytes.fromhex("a003020102")
_COMMON_NAME = bytes.fromhex("0603550403")
_SEQUENCE, _SET, _INTEGER, _BIT_STRING = b"\x30", b"\x31", b"\x02", b"\x03"
_UTF8, _UTC_TIME, _GENERALIZED_TIME = b"\x0c", b"\x17", b"\x18"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A certificate as PEM, and its private key as PEM."""

    certificate: str
    private_key: Secret


class ClientAuthority:
    """The CA of one target; its key is loaded, or made, when it is first needed."""

    def __init__(self, keys: KeyStore, target: str) -> None:
        self._keys, self._target = keys, target
        self._key: SigningKey | None = None
        self._draft = ec.generate_private_key(ec.SECP256R1())
        self._mould: Mould | None = None

    @property
    def durable(self) -> bool:
        """Whether the key outlives this process."""
        return self._keys.durable

    async def pem(self) -> str:
        """Its own certificate, for the server's `ssl_ca_file`. Raises KeyUnusable, Unavailable."""
        key = await self._loaded()
        number = int.from_bytes(key.key_id[:16], "big") >> 1 | 1
        builder = _builder(_name(self._target, key), key.key_id, number, _BEGIN, _END)
        builder = (
            builder.subject_name(_name(self._target, key))
            .public_key(key.public_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(key.key_id), critical=False)
        )
        tbs = builder.sign(self._draft, hashes.SHA256()).tbs_certificate_bytes  # a signature nobody sees
        return ssl.DER_cert_to_PEM_cert(_certificate(tbs, await key.sign(tbs)))

    async def issue(self, role: str, now: datetime, until: datetime) -> Made:
        """A certificate for `role` that ends at `until`, and its key. Raises KeyUnusable, Unavailable."""
        key, private = await self._loaded(), ec.generate_private_key(ec.SECP256R1())
        if self._mould is None:
            self._mould = Mould(_name(self._target, key), key.key_id, self._draft)
        begin, end = (now - BACKDATE).replace(microsecond=0), until.replace(microsecond=0)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        tbs = self._mould.fill(role, public, secrets.randbits(126) | 1, min(begin, end), end)
        leaf = _certificate(tbs, await key.sign(tbs))
        secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Made(certificate=ssl.DER_cert_to_PEM_cert(leaf), private_key=Secret(secret))

    async def _loaded(self) -> SigningKey:
        if self._key is None:
            self._key = await load_or_create(self._keys, f"pg-{self._target}-clients", Purpose.POSTGRES_CLIENT_CA)
        return self._key


class Mould:
    """A leaf of one CA with holes: what differs is filled in, which is four times as fast as building each.

    The builder of `cryptography` makes one; what stands behind its public key is the same in all of them.
    """

    __slots__ = ("_behind", "_issuer")

    def __init__(self, issuer: x509.Name, key_id: bytes, draft: ec.EllipticCurvePrivateKey) -> None:
        public = draft.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        builder = leaf_builder(issuer, key_id, "mould", 1, _BEGIN, _END).public_key(draft.public_key())
        sample = builder.sign(draft, hashes.SHA256()).tbs_certificate_bytes
        self._issuer = issuer.public_bytes()
        self._behind = sample[sample.rindex(public) + len(public) :]
        if self.fill("mould", public, 1, _BEGIN, _END) != sample:
            raise Unavailable("a certificate can't be put together with this version of `cryptography`")

    def fill(self, role: str, public: bytes, serial: int, begin: datetime, end: datetime) -> bytes:
        """The bytes to be signed; `public` is a SubjectPublicKeyInfo, `serial` positive."""
        number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
        who = _value(_SEQUENCE, _COMMON_NAME + _value(_UTF8, role.encode()))
        parts = (
            _VERSION_3,
            _value(_INTEGER, number),
            _ECDSA_SHA256,
            self._issuer,
            _value(_SEQUENCE, _moment(begin) + _moment(end)),
            _value(_SEQUENCE, _value(_SET, who)),
            public,
            self._behind,
        )
        return _value(_SEQUENCE, b"".join(parts))


def leaf_builder(  # noqa: PLR0917 - what a leaf says, in its order
    issuer: x509.Name, key_id: bytes, role: str, serial: int, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    """A leaf as the library writes it, without its public key."""
    return (
        _builder(issuer, key_id, serial, begin, end)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
    )


def _builder(issuer: x509.Name, key_id: bytes, serial: int, begin: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
    )


def _name(target: str, key: SigningKey) -> x509.Name:
    """A name no other authority has: the key's own identifier is in it."""
    said = [
        (NameOID.COMMON_NAME, f"PostgreSQL clients of {target}"[:64].rstrip()),
        (NameOID.SERIAL_NUMBER, key.key_id.hex()),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in said])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(tbs: bytes, signature: bytes) -> bytes:
    return _value(_SEQUENCE, tbs + _ECDSA_SHA256 + _value(_BIT_STRING, b"\x00" + signature))


def _moment(time: datetime) -> bytes:
    """In the form RFC 5280, 4.1.2.5 wants for its year."""
    if time.year < 2050:
        return _value(_UTC_TIME, time.strftime("%y%m%d%H%M%SZ").encode())
    return _value(_GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ").encode())


def _value(tag: bytes, content: bytes) -> bytes:
    """One DER value."""
    length = len(content)
    if length < 0x80:
        return tag + bytes((length,)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return tag + bytes((0x80 | len(size),)) + size + content
