"""The canonical bytes of a receipt (RFC 8785)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.canonical import LARGEST, decode, encode, encode_json
from broker.model.receipt import Receipt, ReceiptKind
from ca.errors import Malformed
from fakes.nouns import NOW

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _receipt(body: dict[str, Any]) -> Receipt:
    return Receipt(kind=ReceiptKind.DECIDED, at=NOW, actor="spiffe://example.org/a", body=body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, False, None]}, b'{"a":[true,false,null],"b":1}'),
        ({}, b"{}"),
        ([], b"[]"),
        (-0, b"0"),
        ('\u20ac$\u000f\u000aA\'B"\\\\"/', b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ("\b\f\t\r\x7f\x1f", b'"\\b\\f\\t\\r\x7f\\u001f"'),
        ("e\u0301", '"e\u0301"'.encode()),
        (LARGEST, b"9007199254740991"),
    ],
)
def test_one_spelling(value: Any, expected: bytes) -> None:
    """Short escapes where there are any, lower-case hex elsewhere, nothing normalised, no space."""
    assert encode_json(value) == expected


def test_keys_are_ordered_by_utf16() -> None:
    """The order of the standard's own example: a pair of surrogates comes before U+FB33."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    found = json.loads(encode_json(dict.fromkeys(keys, 0)), object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    assert found == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        LARGEST + 1,
        -LARGEST - 1,
        b"x",
        {1: 2},
        {"a": {3}},
        "\ud800",
        {"\ud800": 1},
        NOW,
        "x" * 1_100_000,
    ],
)
def test_what_has_no_canonical_form(value: Any) -> None:
    """Fractions, numbers past 53 bits, half surrogates, foreign types and what is too long are refused."""
    with pytest.raises(Malformed):
        encode_json({"value": value})


def test_depth_is_bounded() -> None:
    """A body nested without end is refused before it exhausts the stack."""
    value: Any = 0
    for _ in range(10_000):
        value = [value]
    with pytest.raises(Malformed, match="deeper"):
        encode_json(value)
    with pytest.raises(Malformed):
        decode("[" * 200_000)


@given(VALUES)
def test_canonical_bytes_are_json_of_the_same_value(value: Any) -> None:
    """Any JSON reader finds the value that was written, and writing it again gives the same bytes."""
    encoded = encode_json(value)
    assert json.loads(encoded) == value
    assert encode_json(json.loads(encoded)) == encoded


@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_a_receipt_there_and_back(body: dict[str, Any]) -> None:
    """A receipt is what its bytes say."""
    receipt = _receipt(body)
    assert decode(encode(receipt)) == receipt


@pytest.mark.parametrize(
    "change", [lambda text: f" {text}", lambda text: text.replace(":", ": ", 1), lambda text: text + "\n"]
)
def test_another_spelling_is_refused(change: Any) -> None:
    """What is read must hash as it was written, so a second spelling of the same receipt is none."""
    with pytest.raises(Malformed, match="canonical"):
        decode(change(encode(_receipt({"a": 1})).decode()))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"kind":"decided"}', '{"a":1,"a":2}', '{"a":1.5}', '{"a":NaN}']
)
def test_what_is_no_receipt(text: str) -> None:
    """Broken, doubled, fractional or of another shape: refused."""
    with pytest.raises(Malformed):
        decode(text)
