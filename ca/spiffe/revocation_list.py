"""Certificate revocation lists (RFC 5280, 5), read into sets: what an issuer has taken back before its time.

A serial number means something only to the key that gave it. So a list counts for exactly one key: it names its issuer
and that issuer's key id, and it is believed only when the *certificate that issued the one being judged*, in the very
path that was verified, carries that name and key id, may sign lists, and its key made the list's signature. What
another authority lists, a federated one with our names and our serials included, takes back nothing of ours (traps 15).

A list can only take trust away, and so it is used in every doubt: one that is overdue, or dated ahead of a slow clock,
still takes back what it names. Whether a newer one should have come is for its holder to ask (`overdue`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from ca.errors import Malformed
from ca.spiffe.der import UNREADABLE, key_id_of

LONGEST_LIST = 4 * 1024 * 1024
"""Bytes of one list: some hundred thousand entries."""
MOST_LISTS = 256

_WHAT = "a revocation list"
_VERSION_2 = b"\x02\x01\x01"
_KNOWN = frozenset(
    {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER, ExtensionOID.ISSUER_ALTERNATIVE_NAME}
)
_PARTIAL = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.DELTA_CRL_INDICATOR})
_MOST_JUDGED = 64
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RevocationList:
    """One list as it was read; nothing in it is believed before `signed_by` says so.

    `issuer` is the issuer's name in DER, `number` rises with every list of that issuer.
    """

    issuer: bytes = field(repr=False)
    issuer_key_id: bytes
    number: int
    this_update: datetime
    next_update: datetime
    serials: frozenset[int] = field(repr=False)
    der: bytes = field(repr=False)
    _parsed: x509.CertificateRevocationList = field(repr=False)

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Read one list, in DER.

        Raises:
            Malformed: longer than 4 MiB, not exactly one list of version 2, without a key id, number or next update,
                a list of changes or for several issuers, or with a critical extension this reader does not know.
        """
        if len(der) > LONGEST_LIST:
            raise Malformed(f"{_WHAT} is longer than {LONGEST_LIST} bytes")
        try:
            return cls._read(der)
        except UNREADABLE as error:
            raise Malformed(f"{_WHAT} is not one certificate revocation list in DER") from error

    @classmethod
    def _read(cls, der: bytes) -> Self:
        parsed = x509.load_der_x509_crl(der)
        if not _is_version_2(parsed.tbs_certlist_bytes):
            raise Malformed(f"{_WHAT} has another version than 2")
        begin, end = parsed.last_update_utc, parsed.next_update_utc
        if end is None or end < begin:
            raise Malformed(f"{_WHAT} says no next update that comes after its own")
        key_id, number = _extensions(parsed.extensions)
        return cls(
            issuer=parsed.issuer.public_bytes(),
            issuer_key_id=key_id,
            number=number,
            this_update=begin,
            next_update=end,
            serials=frozenset(map(_serial, parsed)),
            der=der,
            _parsed=parsed,
        )

    def signed_by(self, issuer: x509.Certificate) -> bool:
        """Whether `issuer`, as a certificate of a verified path, made this list and may make lists."""
        try:
            usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
            if not usage.crl_sign or (issuer.subject.public_bytes(), key_id_of(issuer)) != self.key:
                return False
            if not isinstance(self._parsed.signature_hash_algorithm, _HASHES):
                return False
            return self._parsed.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # others: TypeError
        except (x509.ExtensionNotFound, *UNREADABLE):
            return False

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Whose it says it is: the issuer's name and key id."""
        return self.issuer, self.issuer_key_id


class RevocationLists:
    """Lists of any number of issuers: what a verifier is given beside its bundles.

    Of one issuer the list with the highest number counts, among those its key really signed: a forged list with a
    higher number does not hide the true one. Signatures are checked when an issuer is first met and remembered, so a
    handshake costs a look into a set.
    """

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        unique = {each.der: each for each in lists}
        if len(unique) > MOST_LISTS:
            raise Malformed(f"there are more than {MOST_LISTS} revocation lists")
        self._lists = tuple(sorted(unique.values(), key=lambda each: (each.number, each.this_update), reverse=True))
        self._claimed: dict[tuple[bytes, bytes], list[RevocationList]] = {}
        for each in self._lists:
            self._claimed.setdefault(each.key, []).append(each)
        self._judged: dict[x509.Certificate, RevocationList | None] = {}

    @classmethod
    def of(cls, ders: Iterable[bytes]) -> Self:
        """Read lists in DER. Raises Malformed when one can't be read, or there are more than 256."""
        return cls(map(RevocationList.parse, ders))

    def of_issuer(self, issuer: x509.Certificate) -> RevocationList | None:
        """The list that counts for what `issuer` signed, when there is one."""
        if not self._claimed:
            return None
        try:
            return self._judged[issuer]
        except KeyError:
            found = self._judge(issuer)
        if len(self._judged) >= _MOST_JUDGED:
            self._judged.clear()  # only a peer that makes up issuers gets here
        self._judged[issuer] = found
        return found

    def revoked(self, path: Sequence[x509.Certificate]) -> x509.Certificate | None:
        """The first certificate of a verified path, leaf first and anchor last, that its own issuer has taken back."""
        for certificate, issuer in pairwise(path):
            found = self.of_issuer(issuer)
            if found is not None and certificate.serial_number in found.serials:
                return certificate
        return None

    def overdue(self, now: datetime) -> tuple[RevocationList, ...]:
        """The newest list of each issuer where a newer one should have come by `now`."""
        return tuple(lists[0] for lists in self._claimed.values() if lists[0].next_update <= now)

    def __iter__(self) -> Iterator[RevocationList]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def __repr__(self) -> str:
        return f"RevocationLists({len(self._lists)} lists of {len(self._claimed)} issuers)"

    def _judge(self, issuer: x509.Certificate) -> RevocationList | None:
        try:
            key = (issuer.subject.public_bytes(), key_id_of(issuer))
        except UNREADABLE:
            return None
        return next((each for each in self._claimed.get(key, ()) if each.signed_by(issuer)), None)


def _is_version_2(tbs: bytes) -> bool:
    """The library reads a list without a version, which is version 1 and has no extensions to it."""
    head = 2 + (tbs[1] - 0x80 if tbs[1] > 0x80 else 0)
    return tbs[head : head + len(_VERSION_2)] == _VERSION_2


def _extensions(extensions: x509.Extensions) -> tuple[bytes, int]:
    """The issuer's key id and the list's number; whatever would make the list mean less than it seems is refused."""
    key_id: bytes | None = None
    number: int | None = None
    for each in extensions:
        if each.oid in _PARTIAL:
            raise Malformed(f"{_WHAT} holds only some of its issuer's entries, or those of others")
        if each.critical and each.oid not in _KNOWN:
            raise Malformed(f"{_WHAT} has a critical extension that is not known here")
        if isinstance(each.value, x509.AuthorityKeyIdentifier):
            key_id = each.value.key_identifier
        elif isinstance(each.value, x509.CRLNumber):
            number = each.value.crl_number
    if not key_id or number is None:
        raise Malformed(f"{_WHAT} lacks its issuer's key id or its number")
    return key_id, number


def _serial(entry: x509.RevokedCertificate) -> int:
    for extension in entry.extensions:
        if extension.critical or extension.oid == CRLEntryExtensionOID.CERTIFICATE_ISSUER:
            raise Malformed(f"{_WHAT} has an entry that means more than a serial number of its issuer")
    return entry.serial_number
