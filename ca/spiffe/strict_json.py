"""JSON as strangers send it: bounded, without duplicate keys, without numbers that are none (TB-7).

The standard library keeps the last of two equal keys, reads `NaN`, turns `1e999` into infinity and lets half a
surrogate pair through, which fails later where nobody expects it. Two readers that see two meanings in one document
are how a forged bundle or token gets past the first of them; so each of these is refused.
"""

from __future__ import annotations

import json
import math
from typing import Any, Never

from ca.errors import Malformed


def read_object(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The JSON object in `data`; `what` names it in the error's sentence.

    Raises:
        Malformed: longer than `limit` bytes, no UTF-8, no JSON, no object, a duplicate key, nested too deep, or a
            number or text that JSON has no meaning for.
    """
    if len(data) > limit:
        raise Malformed(f"{what} is longer than {limit} bytes")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair does not survive this
    except _DuplicateKeyError as error:
        raise Malformed(f"{what} holds a key twice") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON as RFC 8259 has it") from error
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


class _DuplicateKeyError(ValueError):
    """Two members of one object have one name."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateKeyError
    return members


def _no_number(name: str) -> Never:
    raise ValueError(f"`{name}` is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("the number is larger than any this reader has")
    return value
