"""A revocation list (RFC 5280, 5): what one authority has taken back, and nothing else.

Version 2, with the authority's key id and a number that only rises. An entry is a serial number and when it was taken
back: a reason would tell every reader why somebody's process ended, and no verifier of SVIDs asks for one. The list of
an authority that took nothing back has no entries at all, as the standard wants it.

Like a leaf it is filled in and not built: ten thousand entries are some milliseconds, and the builder of `cryptography`
copies its whole list for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from ca.profiles.prepared import MAKER, Issuer, Kind, Prepared
from ca.profiles.template import ALGORITHM, SEQUENCE, authority_key, extension, integer, moment, tlv

_VERSION_2 = integer(1)
_NUMBER = b"\x55\x1d\x14"  # 2.5.29.20, cRLNumber
_EXTENSIONS = 0xA0  # context tag of TBSCertList

MOST_ENTRIES = 100_000
"""In one list: what readers of ours take is some hundred thousand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate that was taken back."""

    serial: int
    revoked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """What a list is to say; `number` is above that of every earlier one."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: Sequence[Entry] = ()


def prepare(request: ListRequest, issuer: Issuer) -> Prepared:
    """The list for `request`, ready to be signed by `issuer`."""
    begin, end = (each.replace(microsecond=0) for each in (request.this_update, request.next_update))
    at = lru_cache(maxsize=1024)(moment)  # a mass end is many entries of few seconds
    entries = [tlv(SEQUENCE, integer(each.serial), at(each.revoked_at)) for each in request.entries]
    extensions = tlv(SEQUENCE, authority_key(issuer.key_id), extension(_NUMBER, integer(request.number)))
    return Prepared(
        MAKER,
        kind=Kind.CRL,
        tbs=tlv(
            SEQUENCE,
            _VERSION_2,
            ALGORITHM,
            issuer.subject,
            moment(begin),
            moment(end),
            tlv(SEQUENCE, *entries) if entries else b"",
            tlv(_EXTENSIONS, extensions),
        ),
        subject=issuer.trust_domain.id,
        serial=request.number,
        issuer_key_id=issuer.key_id,
        not_before=begin,
        not_after=end,
        revoked=tuple(each.serial for each in request.entries),
    )
