"""SPIFFE IDs and trust domains: parsed once, never a string again (SPIFFE-ID.md, clauses ID-1 to ID-10).

Parsing is strict and never normalises. The standard calls scheme and trust domain case-insensitive and also says the
host must be lower case; two spellings of one identity are an authorisation hazard, so upper case is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from ca.errors import Malformed

LONGEST_ID = 2048
LONGEST_TRUST_DOMAIN = 255

_SCHEME = "spiffe://"
_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_SEGMENT = _DOMAIN | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain by its name, `example.org`."""

    name: str

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Read a trust domain's name, or the SPIFFE ID that stands for it.

        Raises:
            Malformed: empty, longer than 255 bytes, or a character outside `[a-z0-9.-_]` (ID-1, ID-4, ID-9).
        """
        name = text.removeprefix(_SCHEME)
        if not name:
            raise Malformed("a trust domain must not be empty")
        if len(name) > LONGEST_TRUST_DOMAIN:
            raise Malformed(f"a trust domain must not be longer than {LONGEST_TRUST_DOMAIN} bytes")
        if not _DOMAIN.issuperset(name):
            raise Malformed(f"`{_short(name)}` is not a trust domain: expected only `a-z`, `0-9`, `.`, `-` and `_`")
        return cls(name)

    @property
    def id(self) -> SpiffeId:
        """The trust domain's own SPIFFE ID, which has no path."""
        return SpiffeId(self, "")

    def member(self, path: str) -> SpiffeId:
        """The identity at `path` (with its leading slash). Raises Malformed.

        Without the slash the path would go on spelling the domain's name, and the ID be another domain's.
        """
        if not path.startswith("/"):
            raise Malformed(f"`{_short(path)}` is not a path: expected a leading slash")
        return SpiffeId.parse(f"{_SCHEME}{self.name}{path}")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID; `path` is empty or begins with a slash."""

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read a SPIFFE ID.

        Raises:
            Malformed: not to the letter of SPIFFE-ID.md section 2; the sentence says which rule.
        """
        if len(text) > LONGEST_ID:
            raise Malformed(f"a SPIFFE ID must not be longer than {LONGEST_ID} bytes")
        if not text.startswith(_SCHEME):
            raise Malformed(f"`{_short(text)}` is not a SPIFFE ID: expected `spiffe://<trust domain>/<path>`")
        name, slash, rest = text[len(_SCHEME) :].partition("/")
        domain = TrustDomain.parse(name)
        if not slash:
            return cls(domain, "")
        for segment in rest.split("/"):
            _check_segment(segment)
        return cls(domain, "/" + rest)

    def member_of(self, domain: TrustDomain) -> bool:
        """Whether it was named by `domain`."""
        return self.trust_domain == domain

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"


def _check_segment(segment: str) -> None:
    if not segment:
        raise Malformed("a SPIFFE ID's path must not have an empty segment or a trailing slash")
    if segment in {".", ".."}:
        raise Malformed("a SPIFFE ID's path must not have the segments `.` or `..`")
    if not _SEGMENT.issuperset(segment):
        raise Malformed(f"`{_short(segment)}` is not a path segment: expected only letters, digits, `.`, `-` and `_`")


def _short(text: str) -> str:
    return text[:80].encode("unicode_escape").decode("ascii")
