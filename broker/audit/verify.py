"""Is a chain whole? If not, which entry is the first that isn't, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from broker.audit.canonical import decode, encode
from broker.audit.chain import Head, entry_hash
from broker.model.receipt import Entry
from ca.errors import Malformed, Problem


class Fault(StrEnum):
    """What is wrong with the first bad entry."""

    EDITED = "edited"  # its content is not what was hashed
    GAP = "gap"  # entries before it are missing
    REORDERED = "reordered"  # it stands behind one that came later
    REPLACED = "replaced"  # it follows another entry than the one before it
    FOREIGN = "foreign"  # it belongs to another writer's chain
    CUT = "cut"  # the chain ends before a head that is known
    FORKED = "forked"  # the chain holds another entry at the number of a head that is known


class Broken(Problem):
    """A chain is not whole: `number` is the first bad entry's."""

    code = "audit-broken"

    def __init__(self, writer: str, number: int, fault: Fault, words: str) -> None:
        super().__init__(f"entry {number} of `{writer}`: {words}", writer=writer, number=number, fault=str(fault))
        self.writer, self.number, self.fault = writer, number, fault


def verify(entries: Iterable[Entry], *, start: Head | None = None, head: Head | None = None) -> Head | None:
    """Verify one writer's entries in the order in which they are stored; answers where they end.

    `start` is a verified head to go on from; without one the chain must begin at its first entry. `head` is one kept
    from before or elsewhere, which the chain must still hold: without it a cut tail can't be seen.

    Raises:
        Broken: names the first bad entry.
    """
    if start is not None and head is not None and head.number < start.number:
        raise RuntimeError("a known head lies at or behind the start")
    last, known = start, head
    for entry in entries:
        last = last if last is not None else Head.empty(entry.writer)
        _check(entry, last)
        last = Head.of(entry)
        if known is not None and entry.number == known.number:
            if last != known:
                raise Broken(entry.writer, entry.number, Fault.FORKED, "is not the entry that was known to stand here")
            known = None
    if known is not None and known.number > 0 and known != start:
        raise _cut(last, known)
    return last


def read(writer: str, number: int, previous: str, digest: str, content: bytes | str) -> Entry:
    """An entry as it was stored, `content` being its canonical receipt.

    Raises:
        Broken: what is stored is not the canonical form of a receipt, so it isn't what was written.
    """
    try:
        receipt = decode(content)
    except (Malformed, UnicodeDecodeError) as error:
        raise Broken(writer, number, Fault.EDITED, f"can't have been written so: {error}") from error
    return Entry(writer=writer, number=number, previous=previous, hash=digest, receipt=receipt)


def _check(entry: Entry, last: Head) -> None:
    if entry.writer != last.writer:
        raise Broken(entry.writer, entry.number, Fault.FOREIGN, f"stands in the chain of `{last.writer}`")
    if entry.number > last.number + 1:
        words = f"follows entry {last.number}, {entry.number - last.number - 1} are missing"
        raise Broken(entry.writer, entry.number, Fault.GAP, words)
    if entry.number <= last.number:
        raise Broken(entry.writer, entry.number, Fault.REORDERED, f"stands behind entry {last.number}")
    try:
        content = encode(entry.receipt)
    except Malformed as error:
        raise Broken(entry.writer, entry.number, Fault.EDITED, f"can't have been written so: {error}") from error
    if entry_hash(entry.writer, entry.number, entry.previous, content) != entry.hash:
        raise Broken(entry.writer, entry.number, Fault.EDITED, "was edited: its content is not what was hashed")
    if entry.previous != last.hash:
        raise Broken(
            entry.writer, entry.number, Fault.REPLACED, "does not follow the entry before it, which is another"
        )


def _cut(last: Head | None, known: Head) -> Broken:
    ends = last.number if last is not None else 0
    if ends >= known.number:
        return Broken(known.writer, known.number, Fault.GAP, "is known and not among the entries")
    return Broken(known.writer, ends + 1, Fault.CUT, f"is missing: entry {known.number} was known, the rest was cut")
