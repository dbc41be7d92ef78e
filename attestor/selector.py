"""Selectors: what is known about a node or a process, `unix:uid:1000`.

A selector says who found it out (`unix`) and what (`uid:1000`). A rule matches when all it asks for is among what was
found; nothing is ever compared in part, so a selector has no pattern and no case folding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ca.errors import Malformed

LONGEST = 4096
_TYPE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """One fact and its finder."""

    type: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read `type:value`.

        Raises:
            Malformed: no colon, an odd type, an empty or overlong value, or control characters in it.
        """
        kind, colon, value = text.partition(":")
        if not colon or not kind or not value or not _TYPE.issuperset(kind):
            raise Malformed(f"`{_short(text)}` is not a selector: expected `<type>:<value>` such as `unix:uid:1000`")
        if len(text) > LONGEST:
            raise Malformed(f"the selector `{_short(text)}` is longer than {LONGEST} characters")
        if not value.isprintable():
            raise Malformed(f"the selector `{_short(text)}` has characters that can't be printed")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


Selectors = frozenset[Selector]


def parse_all(texts: Iterable[str]) -> Selectors:
    """Read several. Raises Malformed."""
    return frozenset(Selector.parse(text) for text in texts)


def texts(selectors: Iterable[Selector]) -> list[str]:
    """The inverse of `parse_all`, in a stable order."""
    return [str(selector) for selector in sorted(selectors)]


def _short(text: str) -> str:
    return text[:80].encode("unicode_escape").decode("ascii")
