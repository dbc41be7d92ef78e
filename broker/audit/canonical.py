"""The bytes of a receipt: one spelling for one meaning, so that a stranger hashes what we hashed (RFC 8785).

Of JSON only what every reader agrees on is let in: texts (as they are, never normalised), whole numbers of at most 53
bits, true, false, null, arrays and objects. A fraction is refused: its shortest spelling is where implementations
differ. Keys are ordered by their UTF-16 code units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from broker.model.receipt import Receipt
from ca.errors import Malformed

LARGEST = (1 << 53) - 1
"""The largest whole number every JSON reader keeps whole."""

_DEEPEST = 32
_LONGEST = 1024 * 1024


def encode(receipt: Receipt) -> bytes:
    """The canonical bytes of a receipt. Raises Malformed: its body holds what has no canonical form."""
    return encode_json(receipt.to_json())


def decode(data: bytes | str) -> Receipt:
    """The receipt that has these canonical bytes.

    Raises:
        Malformed: not JSON, not a receipt, or not in the canonical spelling: what is read must hash as it was written.
    """
    text = data.decode(errors="strict") if isinstance(data, bytes) else data
    value = _load(text)
    if not isinstance(value, dict):
        raise Malformed("a receipt is an object")
    receipt = Receipt.from_json(value)
    if encode(receipt) != text.encode():
        raise Malformed("the receipt is not in canonical form")
    return receipt


def encode_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises Malformed."""
    try:
        encoded = _text(value, _DEEPEST).encode()
    except UnicodeEncodeError as error:
        raise Malformed("a text holds half of a surrogate pair, which has no canonical form") from error
    if len(encoded) > _LONGEST:
        raise Malformed(f"longer than {_LONGEST} bytes in canonical form")
    return encoded


def _load(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("the receipt is not JSON") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _text(value: Any, depth: int) -> str:
    if depth == 0:
        raise Malformed(f"nested deeper than {_DEEPEST} levels, which has no canonical form here")
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, (dict, Mapping)):  # the second alone is slow to ask
        return _object(value, depth)
    if isinstance(value, (list, tuple)):
        return f"[{','.join([_text(one, depth - 1) for one in value])}]"
    raise Malformed(f"a `{type(value).__name__}` has no canonical form, expected texts and whole numbers")


def _number(value: int) -> str:
    if abs(value) > LARGEST:
        raise Malformed("a whole number of more than 53 bits has no canonical form; write it as a text")
    return str(int(value))


def _object(value: Mapping[Any, Any], depth: int) -> str:
    try:
        plain = "".join(value).isascii()
    except TypeError as error:
        raise Malformed("an object's keys are texts") from error
    keys = sorted(value) if plain else sorted(value, key=_utf16)
    return f"{{{','.join([f'{encode_basestring(key)}:{_text(value[key], depth - 1)}' for key in keys])}}}"


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")
