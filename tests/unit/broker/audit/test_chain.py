"""The hash chain, against a hash made here by hand."""

from __future__ import annotations

import hashlib
import struct

from broker.audit.chain import FIRST_PREVIOUS, Head, after, entry_hash, extend
from broker.model.receipt import Receipt, ReceiptKind
from fakes.nouns import NOW

RECEIPT = Receipt(kind=ReceiptKind.OPERATOR_CHANGED, at=NOW, actor="operator:ada", body={"verb": "add"})
CANONICAL = (
    b'{"actor":"operator:ada","at":"2026-11-23T12:00:00.000000Z","body":{"verb":"add"},'
    b'"kind":"operator.changed","lease":null,"task":null}'
)


def test_the_hash_can_be_made_by_a_stranger() -> None:
    """SHA-256 over four parts, each behind its length in eight bytes; these bytes are a promise to auditors."""
    parts = [b"broker-1", b"1", b"0" * 64, CANONICAL]
    expected = hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in parts)).hexdigest()
    entry = extend("broker-1", 1, FIRST_PREVIOUS, RECEIPT)
    assert (entry.hash, entry.previous, entry.number, entry.writer) == (expected, "0" * 64, 1, "broker-1")


def test_each_entry_follows_the_one_before() -> None:
    """The first follows nothing; every other holds the hash before it."""
    first = after(Head.empty("broker-1"), RECEIPT)
    second = after(Head.of(first), RECEIPT)
    assert first == extend("broker-1", 1, FIRST_PREVIOUS, RECEIPT)
    assert (second.number, second.previous) == (2, first.hash)
    assert second.hash != first.hash


def test_parts_cannot_run_into_one_another() -> None:
    """Moving a character from one part to the next changes the hash."""
    assert entry_hash("broker-1", 11, "", b"x") != entry_hash("broker-11", 1, "", b"x")
    assert entry_hash("b", 1, "ab", b"c") != entry_hash("b", 1, "a", b"bc")
