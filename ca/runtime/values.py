"""Which values a store keeps: the same, and refused with the same words, whatever the driver."""

from __future__ import annotations

from ca.errors import Malformed
from ca.runtime.database import Value

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)


def bindable(value: Value) -> Value:
    """`value` as it is given to a driver.

    Raises:
        Malformed: a number of more than 64 bits, a text with NUL or with half a surrogate pair: somebody sent it.
        RuntimeError: nothing a store keeps.
    """
    kind = type(value)  # asked first: nearly all values are plain texts and numbers
    if kind is str and value.isascii() and "\0" not in value:  # type: ignore[union-attr,operator]
        return value
    if kind is int and _SMALLEST <= value <= _LARGEST:  # type: ignore[operator]
        return value
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, bytes)):
        return value
    if isinstance(value, int):
        if not _SMALLEST <= value <= _LARGEST:
            raise Malformed("a number does not fit into 64 bits")
        return value
    raise RuntimeError(f"a `{type(value).__name__}` is nothing a store keeps: expected int, str, bytes, bool or None")


def _text(value: str) -> str:
    if "\0" in value:
        raise Malformed("a text with a NUL character can't be stored")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Malformed("a text with half a surrogate pair can't be stored") from error
    return str.__str__(value)
