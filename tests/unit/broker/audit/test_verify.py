"""The verifier names the first bad entry and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.audit.canonical import encode
from broker.audit.chain import Head, after, extend
from broker.audit.verify import Broken, Fault, read, verify
from broker.model.receipt import Entry, Receipt, ReceiptKind
from fakes.nouns import NOW


def _chain(length: int, writer: str = "broker-1", actor: str = "a") -> list[Entry]:
    head, entries = Head.empty(writer), []
    for number in range(length):
        receipt = Receipt(kind=ReceiptKind.DECIDED, at=NOW, actor=actor, body={"number": number})
        entries.append(after(head, receipt))
        head = Head.of(entries[-1])
    return entries


def _swapped(entries: list[Entry]) -> list[Entry]:
    return [*entries[:2], entries[3], entries[2], *entries[4:]]


def _edited(entries: list[Entry]) -> list[Entry]:
    edited = replace(entries[2], receipt=replace(entries[2].receipt, actor="somebody else"))
    return [*entries[:2], edited, *entries[3:]]


def _rehashed(entries: list[Entry]) -> list[Entry]:
    """Edited by somebody who knows the hash: the entry is right in itself, the next one gives it away."""
    third = entries[2]
    forged = extend(third.writer, 3, third.previous, replace(third.receipt, actor="somebody else"))
    return [*entries[:2], forged, *entries[3:]]


def _unwritable(entries: list[Entry]) -> list[Entry]:
    edited = replace(entries[2], receipt=replace(entries[2].receipt, body={"number": 1.5}))
    return [*entries[:2], edited, *entries[3:]]


@pytest.mark.parametrize(
    ("damage", "number", "fault"),
    [
        (_edited, 3, Fault.EDITED),
        (_unwritable, 3, Fault.EDITED),
        (_rehashed, 4, Fault.REPLACED),
        (lambda entries: [*entries[:2], *entries[3:]], 4, Fault.GAP),
        (lambda entries: entries[1:], 2, Fault.GAP),
        (_swapped, 4, Fault.GAP),
        (lambda entries: [*entries[:3], entries[1], *entries[3:]], 2, Fault.REORDERED),
        (lambda entries: [*entries[:2], *_chain(6, "broker-2")[2:]], 3, Fault.FOREIGN),
        (lambda entries: [replace(entries[0], previous="f" * 64), *entries[1:]], 1, Fault.EDITED),
    ],
)
def test_the_first_bad_entry(damage: Callable[[list[Entry]], list[Entry]], number: int, fault: Fault) -> None:
    """Deleted, edited, swapped, replayed, forged: the number and the kind are told."""
    with pytest.raises(Broken) as raised:
        verify(damage(_chain(6)))
    assert (raised.value.number, raised.value.fault) == (number, fault)
    assert raised.value.details["number"] == number


def test_a_whole_chain_answers_its_head() -> None:
    """Empty, whole, and in two parts."""
    entries = _chain(6)
    assert verify([]) is None
    assert verify(entries) == Head.of(entries[-1])
    start = verify(entries[:3])
    assert verify(entries[3:], start=start, head=Head.of(entries[-1])) == Head.of(entries[-1])
    assert verify([], start=start) == start
    assert verify(entries, head=Head.of(entries[2])) == Head.of(entries[-1])


def test_a_cut_tail_is_seen_with_a_known_head() -> None:
    """Without a head a shorter chain is a whole chain; with one the first missing entry is named."""
    entries = _chain(6)
    assert verify(entries[:4]) == Head.of(entries[3])
    with pytest.raises(Broken) as raised:
        verify(entries[:4], head=Head.of(entries[-1]))
    assert (raised.value.number, raised.value.fault) == (5, Fault.CUT)
    with pytest.raises(Broken) as raised:
        verify([], head=Head.of(entries[-1]))
    assert (raised.value.number, raised.value.fault) == (1, Fault.CUT)


def test_a_chain_that_was_written_anew_is_seen_with_a_known_head() -> None:
    """A second history of the same length is whole in itself and not the one that was known."""
    known = Head.of(_chain(6)[3])
    with pytest.raises(Broken) as raised:
        verify(_chain(6, actor="b"), head=known)
    assert (raised.value.number, raised.value.fault) == (4, Fault.FORKED)


def test_what_was_stored_is_read_strictly() -> None:
    """A stored receipt in another spelling, or none at all, is an edited entry."""
    entry = _chain(1)[0]
    content = encode(entry.receipt)
    assert read(entry.writer, entry.number, entry.previous, entry.hash, content) == entry
    for edited in (content + b" ", b"{}", b"\xff", content.replace(b"decided", b"undecided")):
        with pytest.raises(Broken) as raised:
            read(entry.writer, 1, entry.previous, entry.hash, edited)
        assert raised.value.fault is Fault.EDITED
