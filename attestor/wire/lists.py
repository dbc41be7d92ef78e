"""Revocation lists as they travel: on a node agent's stream, and by name on the public API.

On a stream each list is carried once, and which of them count is said each time by their digests. A list may have
hundreds of kilobytes and a server may hold ten thousand streams, so an update that changes something else must not
carry it again. What counts is still the whole state: a reader that lacks one of the lists named can't go on with this
stream, and begins another that brings everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Self

from pydantic import BaseModel, ConfigDict

from ca.errors import Malformed

MOST_LISTS = 256
"""Of one trust domain: every server has a root and a few issuing authorities."""


@lru_cache(maxsize=32)
def digest(der: bytes) -> bytes:
    """By which a list is named; asked for once for each stream, of the same few lists."""
    return hashlib.sha256(der).digest()


def encode(lists: Sequence[bytes], held: Collection[bytes]) -> tuple[list[bytes], list[bytes]]:
    """For a server: the lists a reader that holds `held` still needs, and the digests of all."""
    return [one for one in lists if one not in held], [digest(one) for one in lists]


def decode(carried: Sequence[bytes], digests: Sequence[bytes], held: Iterable[bytes]) -> tuple[bytes, ...]:
    """For a node: every list that counts, in the order named. Raises Malformed: too many, or one is missing."""
    if len(digests) > MOST_LISTS:
        raise Malformed(f"the attestor server named more than {MOST_LISTS} revocation lists")
    known = {digest(one): one for one in (*held, *carried)}
    missing = [one for one in digests if one not in known]
    if missing:
        raise Malformed("the attestor server named a revocation list that this stream has not carried")
    return tuple(known[one] for one in digests)


class RevocationListName(BaseModel):
    """One list, to be asked for at `/crl/{issuer_key_id}`; `size` in bytes, times in UTC (ISO 8601)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    issuer_key_id: str
    number: int
    this_update: str
    next_update: str
    size: int

    @classmethod
    def of(cls, issuer_key_id: bytes, number: int, this_update: datetime, next_update: datetime, der: bytes) -> Self:
        """Of a list as it is kept."""
        return cls(
            issuer_key_id=issuer_key_id.hex(),
            number=number,
            this_update=this_update.isoformat(),
            next_update=next_update.isoformat(),
            size=len(der),
        )


class RevocationListNames(BaseModel):
    """`GET /crl` of the public API."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lists: list[RevocationListName]
