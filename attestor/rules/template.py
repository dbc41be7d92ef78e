"""SPIFFE ID templates: fixed text and fixed placeholders, no language.

    /agent/{unix.user}                          in the server's own trust domain
    spiffe://example.org/{k8s.ns}/{k8s.sa}      the same, spelled out

A placeholder stands for one whole path segment and takes the value of the one selector it is made of. Its value must be
a path segment by itself, so that a label `x/../task/1` names nothing (traps 2). Paths below `/sojourn` and `/task`
belong to the server: no rule in a file can write them, whatever its placeholders are filled with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attestor.selector import Selectors
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

RESERVED = frozenset({"sojourn", "task"})
"""First segments no rule may produce."""

PLACEHOLDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "node.name": ("node", "name:"),
        "unix.uid": ("unix", "uid:"),
        "unix.user": ("unix", "user:"),
        "unix.gid": ("unix", "gid:"),
        "unix.group": ("unix", "group:"),
        "k8s.ns": ("k8s", "ns:"),
        "k8s.sa": ("k8s", "sa:"),
        "k8s.pod-name": ("k8s", "pod-name:"),
        "k8s.pod-uid": ("k8s", "pod-uid:"),
        "k8s.container-name": ("k8s", "container-name:"),
        "systemd.unit": ("systemd", "unit:"),
    }
)
"""Placeholder -> type of the selector and how its value begins."""

_FIXED = re.compile(r"[A-Za-z0-9._-]+")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: each segment is fixed text, or the name of a placeholder."""

    trust_domain: TrustDomain
    segments: tuple[tuple[str, bool], ...]  # (text, whether it names a placeholder)
    may_be_reserved: bool = False

    @classmethod
    def parse(cls, text: str, trust_domain: TrustDomain, *, may_be_reserved: bool = False) -> Template:
        """Read `text` as a template for `trust_domain`; only the server's own rules are given `may_be_reserved`.

        Raises:
            Malformed: another trust domain, a reserved path, an unknown placeholder, or one that is not alone in its
                segment.
        """
        name, path = trust_domain.name, text
        if text.startswith("spiffe://"):
            name, _, rest = text.removeprefix("spiffe://").partition("/")
            path = "/" + rest
        if name != trust_domain.name:
            raise Malformed(
                f"`{name[:80]}` is another trust domain: a rule may only name identities of `{trust_domain}`"
            )
        if not path.startswith("/") or path == "/":
            raise Malformed("a SPIFFE ID template must be `spiffe://<trust domain>/<path>` or `/<path>`")
        segments = tuple(_segment(one) for one in path[1:].split("/"))
        if segments[0][0] in RESERVED and not may_be_reserved:
            raise Malformed(f"`/{segments[0][0]}` is reserved: no rule may give identities there")
        return cls(trust_domain, segments, may_be_reserved)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of its placeholders, in order."""
        return tuple(text for text, variable in self.segments if variable)

    def fill(self, selectors: Selectors) -> SpiffeId:
        """The identity `selectors` make of it.

        Raises:
            Malformed: a placeholder has no value, several, or one that is not a path segment; or the result is
                reserved. The sentence is the reason shown by `explain`.
        """
        parts = [_value(text, selectors) if variable else text for text, variable in self.segments]
        if parts[0] in RESERVED and not self.may_be_reserved:
            raise Malformed(f"its placeholders would give an identity below the reserved path `/{parts[0]}`")
        return self.trust_domain.member("/" + "/".join(parts))

    def __str__(self) -> str:
        path = "/".join(f"{{{text}}}" if variable else text for text, variable in self.segments)
        return f"spiffe://{self.trust_domain}/{path}"


def _segment(text: str) -> tuple[str, bool]:
    found = _PLACEHOLDER.fullmatch(text)
    if found:
        if found[1] not in PLACEHOLDERS:
            raise Malformed(f"`{{{found[1][:40]}}}` is no placeholder: expected one of {_listed()}")
        return found[1], True
    if "{" in text or "}" in text:
        raise Malformed(f"`{text[:80]}`: a placeholder must be a whole path segment")
    if not _FIXED.fullmatch(text) or text in {".", ".."}:
        raise Malformed(f"`{text[:80]}` is not a path segment: expected only letters, digits, `.`, `-` and `_`")
    return text, False


def _value(name: str, selectors: Selectors) -> str:
    kind, beginning = PLACEHOLDERS[name]
    values = sorted(
        one.value.removeprefix(beginning) for one in selectors if one.type == kind and one.value.startswith(beginning)
    )
    if len(values) != 1:
        raise Malformed(f"`{{{name}}}` needs exactly one selector `{kind}:{beginning}…`, there are {len(values)}")
    if not _FIXED.fullmatch(values[0]) or values[0] in {".", ".."}:
        raise Malformed(
            f"the value of `{{{name}}}` is not one path segment: expected only letters, digits, `.`, `-`, `_`"
        )
    return values[0]


def _listed() -> str:
    return ", ".join(f"`{{{name}}}`" for name in PLACEHOLDERS)
