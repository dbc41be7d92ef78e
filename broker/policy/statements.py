"""Where each statement of a Cedar text begins: cedarpy tells neither the place of a policy nor that of a mistake."""

from __future__ import annotations

from collections.abc import Iterator


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement of a Cedar text up to its `;`, with the line it begins in."""
    start: int | None = None
    position = 0
    while position < len(text):
        if text.startswith("//", position):
            position = _until(text, "\n", position)
            continue
        sign = text[position]
        if start is None and not sign.isspace():
            start = position
        position = _behind_string(text, position) if sign == '"' else position + 1
        if sign == ";" and start is not None:
            yield text.count("\n", 0, start) + 1, text[start:position]
            start = None
    if start is not None:
        yield text.count("\n", 0, start) + 1, text[start:]


def _until(text: str, sign: str, position: int) -> int:
    found = text.find(sign, position)
    return len(text) if found < 0 else found


def _behind_string(text: str, position: int) -> int:
    position += 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return position + 1
