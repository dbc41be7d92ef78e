"""One hash chain per writer: each entry holds the hash of the one before it (DESIGN 7, traps 39).

    hash = SHA-256 over writer, number, previous hash and canonical receipt, each behind its length in eight bytes

The lengths keep the parts apart: no two different entries have the same bytes. A chain shows an edit, a gap and a
change of order to whoever reads it; a cut tail only to whoever knows a later head; a chain that was rewritten as a
whole only to whoever kept an old one. Whoever owns the store can rewrite it, until heads are anchored elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from broker.audit.canonical import encode
from broker.model.receipt import Entry, Receipt

FIRST_NUMBER = 1
FIRST_PREVIOUS = "0" * 64
"""What stands in the first entry of a chain as the hash before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a chain: its number (0 for one without an entry) and hash. Keep one elsewhere to notice a cut."""

    writer: str
    number: int
    hash: str

    @classmethod
    def empty(cls, writer: str) -> Head:
        """The head of a chain that has no entry."""
        return cls(writer=writer, number=FIRST_NUMBER - 1, hash=FIRST_PREVIOUS)

    @classmethod
    def of(cls, entry: Entry) -> Head:
        """The head of a chain that ends with `entry`."""
        return cls(writer=entry.writer, number=entry.number, hash=entry.hash)


def extend(writer: str, number: int, previous: str, receipt: Receipt) -> Entry:
    """The entry `number` of `writer`'s chain. Raises Malformed: the receipt has no canonical form."""
    digest = entry_hash(writer, number, previous, encode(receipt))
    return Entry(writer=writer, number=number, previous=previous, hash=digest, receipt=receipt)


def after(head: Head, receipt: Receipt) -> Entry:
    """The entry that follows `head`. Raises Malformed."""
    return extend(head.writer, head.number + 1, head.hash, receipt)


def entry_hash(writer: str, number: int, previous: str, receipt: bytes) -> str:
    """The hash of an entry with these canonical bytes, in hex."""
    digest = hashlib.sha256()
    for part in (writer.encode(), str(number).encode(), previous.encode(), receipt):
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()
