"""Patterns over the `sub` of a CI system's token, segment by segment.

    repo:acme/*:ref:refs/heads/main        one repository of acme, whichever
    repo:acme/app:ref:refs/tags/**         every tag, with slashes in it or without

A subject is made of segments with `:` or `/` between them. `*` stands for exactly one segment and `**`, only at the
end, for one or more; neither reaches into a part of a segment, and a separator matches only itself. So a pattern says
how many parts a name has, and nobody gets in by a repository called `app:ref`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ca.errors import Malformed

LONGEST = 1024
_SPLIT = re.compile(r"([:/])")
_REST = "**"


@dataclass(frozen=True, slots=True)
class SubjectPattern:
    """One pattern: segments and separators in turn."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> SubjectPattern:
        """Read one. Raises Malformed: a star that is not alone in its segment, `**` before the end, nothing fixed."""
        parts = _parts(text)
        segments = parts[::2]
        for place, segment in enumerate(segments):
            if "*" in segment and segment not in {"*", _REST}:
                raise Malformed("in a subject pattern a `*` must be a whole segment between `:` or `/`")
            if segment == _REST and place != len(segments) - 1:
                raise Malformed("in a subject pattern `**` may only stand at the end")
        if all("*" in segment for segment in segments[:2]):
            raise Malformed("a subject pattern must begin with something fixed: it would be anybody's")
        return cls(parts)

    def matches(self, subject: str) -> bool:
        """Whether `subject` is one of those meant."""
        try:
            found = _parts(subject)
        except Malformed:
            return False
        wanted = self.parts
        if wanted[-1] == _REST:
            wanted = wanted[:-1]
            if len(found) <= len(wanted):
                return False
            found = found[: len(wanted)]
        return len(found) == len(wanted) and all(
            one in {other, "*"} if place % 2 == 0 else one == other
            for place, (one, other) in enumerate(zip(wanted, found, strict=True))
        )

    def __str__(self) -> str:
        return "".join(self.parts)


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(_SPLIT.split(text))
    if not 0 < len(text) <= LONGEST or not text.isprintable() or not all(parts):
        raise Malformed(f"a subject must be printable, without empty segments, and at most {LONGEST} characters")
    return parts
