"""What a task may reach: roles, tools, destinations, a ceiling on sensitivity, a budget. Rights only shrink.

A pattern is an exact name (`orders-db/readonly`) or a segment prefix (`orders-db/*`, `*`), so whether one scope lies
within another can be decided (traps 22). Only `/` separates segments. The names themselves never hold a `*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ca.errors import Malformed

_LONGEST = 200
_MOST = 256
_NO_SEGMENT = frozenset({"", ".", ".."})  # whoever resolves `a/../b` would leave the prefix `a/*`


class Sensitivity(IntEnum):
    """How much harm a leak would do; unknown counts as the highest."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @classmethod
    def parse(cls, text: str) -> Sensitivity:
        """Read `public`, `internal`, `confidential` or `restricted`. Raises Malformed."""
        try:
            return cls[text.upper()] if text == text.lower() else cls[""]
        except KeyError:
            known = "`, `".join(level.name.lower() for level in cls)
            raise Malformed(f"unknown sensitivity `{text[:40]}`, expected one of `{known}`") from None

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """An exact name, or every name under a prefix of whole segments (`orders-db/*`; `*` is everything)."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern. Raises Malformed: too long, a segment that is empty or `..`, or a misplaced `*`."""
        segments = text.split("/")
        if len(text) > _LONGEST or not text.isprintable() or not _NO_SEGMENT.isdisjoint(segments):
            raise Malformed(f"not a name or prefix: `{text[:60]}`, expected `a/b`, `a/*` or `*`")
        if any("*" in segment for segment in segments[:-1]) or ("*" in segments[-1] and segments[-1] != "*"):
            raise Malformed(f"`*` may only be a whole last segment, not as in `{text[:60]}`")
        return cls(text)

    @property
    def is_prefix(self) -> bool:
        """Whether this stands for many names."""
        return self.text == "*" or self.text.endswith("/*")

    def matches(self, name: str) -> bool:
        """Whether `name` is meant; what isn't a name (empty segments, a `*`) is meant by no pattern."""
        if not _is_name(name):
            return False
        if not self.is_prefix:
            return name == self.text
        return self.text == "*" or name.startswith(self.text[:-1])

    def within(self, other: Pattern) -> bool:
        """Whether every name this matches is matched by `other`."""
        if other.text == "*":
            return True
        if self.is_prefix:
            return other.is_prefix and self.text[:-1].startswith(other.text[:-1])
        return other.matches(self.text)

    def __str__(self) -> str:
        return self.text


def _is_name(text: str) -> bool:
    return "*" not in text and _NO_SEGMENT.isdisjoint(text.split("/"))


Patterns = frozenset[Pattern]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a task may use; None means: what the parent still has."""

    secrets: int | None = None
    decisions: int | None = None

    def within(self, other: Budget) -> bool:
        """Whether no number here is larger than in `other`."""
        return _at_most(self.secrets, other.secrets) and _at_most(self.decisions, other.decisions)


def _at_most(mine: int | None, theirs: int | None) -> bool:
    return theirs is None or (mine is not None and mine <= theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What may be reached. The empty scope reaches nothing."""

    roles: Patterns = frozenset()
    tools: Patterns = frozenset()
    destinations: Patterns = frozenset()
    sensitivity: Sensitivity = Sensitivity.PUBLIC
    budget: Budget = Budget()

    def within(self, other: Scope) -> bool:
        """Whether this scope gives nothing that `other` does not give."""
        return (
            _covered(self.roles, other.roles)
            and _covered(self.tools, other.tools)
            and _covered(self.destinations, other.destinations)
            and self.sensitivity <= other.sensitivity
            and self.budget.within(other.budget)
        )

    def meet(self, other: Scope) -> Scope:
        """The largest scope within both."""
        return Scope(
            roles=_both(self.roles, other.roles),
            tools=_both(self.tools, other.tools),
            destinations=_both(self.destinations, other.destinations),
            sensitivity=min(self.sensitivity, other.sensitivity),
            budget=Budget(
                secrets=_least(self.budget.secrets, other.budget.secrets),
                decisions=_least(self.budget.decisions, other.budget.decisions),
            ),
        )

    def allows_role(self, name: str) -> bool:
        """Whether the role `target/role` is inside."""
        return reaches(self.roles, name)

    def allows_tool(self, name: str) -> bool:
        """Whether the tool is inside."""
        return reaches(self.tools, name)

    def allows_destination(self, name: str) -> bool:
        """Whether the destination is inside."""
        return reaches(self.destinations, name)

    def to_json(self) -> dict[str, Any]:
        """The form of the REST surface and of the store."""
        return {
            "roles": sorted(map(str, self.roles)),
            "tools": sorted(map(str, self.tools)),
            "destinations": sorted(map(str, self.destinations)),
            "sensitivity": str(self.sensitivity),
            "budget": {"secrets": self.budget.secrets, "decisions": self.budget.decisions},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scope:
        """The inverse of `to_json`; what is missing reaches nothing. Raises Malformed."""
        budget = value.get("budget") or {}
        if not isinstance(budget, Mapping):
            raise Malformed("a budget is an object with `secrets` and `decisions`")
        return cls(
            roles=patterns(value.get("roles", ())),
            tools=patterns(value.get("tools", ())),
            destinations=patterns(value.get("destinations", ())),
            sensitivity=Sensitivity.parse(value.get("sensitivity", "public")),
            budget=Budget(secrets=_count(budget.get("secrets")), decisions=_count(budget.get("decisions"))),
        )


EVERYTHING = Scope(
    roles=frozenset({Pattern("*")}),
    tools=frozenset({Pattern("*")}),
    destinations=frozenset({Pattern("*")}),
    sensitivity=Sensitivity.RESTRICTED,
)
"""The scope every other lies within: what bounds a task nobody's task opened."""


def patterns(texts: Iterable[str]) -> Patterns:
    """Read several patterns. Raises Malformed: one is wrong, or there are more than 256."""
    if isinstance(texts, str):
        raise Malformed(f"expected a list of names and prefixes, not the text `{texts[:60]}`")
    found = frozenset(Pattern.parse(text) for text in texts)
    if len(found) > _MOST:
        raise Malformed(f"more than {_MOST} patterns in one list")
    return found


def reaches(found: Patterns, name: str) -> bool:
    """Whether one of the patterns means `name`."""
    return any(pattern.matches(name) for pattern in found)


def _count(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise Malformed("a budget's number is a whole number of zero or more")


def _covered(mine: Patterns, theirs: Patterns) -> bool:
    return all(any(pattern.within(other) for other in theirs) for pattern in mine)


def _both(mine: Patterns, theirs: Patterns) -> Patterns:
    inside = {a for a in mine if any(a.within(b) for b in theirs)}
    return frozenset(inside | {b for b in theirs if any(b.within(a) for a in mine)})


def _least(mine: int | None, theirs: int | None) -> int | None:
    known = [number for number in (mine, theirs) if number is not None]
    return min(known) if known else None
