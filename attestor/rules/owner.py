"""Whose rules these are: a team may name its own identities, for its own workloads, and nobody else's.

An owner's rules can only give identities below the owner's paths, whatever their placeholders are filled with; they
hold only for the nodes and processes that the owner's own conditions allow, which are added to each of them. A fault in
an owner's files keeps that owner's former rules in force and touches nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from attestor.rules.model import Condition, Rule
from attestor.rules.template import RESERVED, Template
from ca.errors import Malformed

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")

EVERY_DOMAIN = "*"
"""In `federates_with`: every foreign trust domain there is."""


def parse_name(text: str) -> str:
    """Read the name of an owner or a rule. Raises Malformed."""
    if not _NAME.fullmatch(text):
        raise Malformed("a name must be up to 64 of `a-z`, `0-9`, `.`, `_`, `-` and begin with a letter or digit")
    return text


@dataclass(frozen=True, slots=True)
class Path:
    """Where an owner's identities are: `/finance`, whole segments."""

    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Path:
        """Read one. Raises Malformed: not a path, or a reserved one."""
        parts = tuple(text.removeprefix("/").split("/"))
        if not text.startswith("/") or not all(_SEGMENT.fullmatch(one) and one not in {".", ".."} for one in parts):
            raise Malformed(f"`{text[:80]}` is not the path of an owner: expected `/segment` or `/segment/segment`")
        if parts[0] in RESERVED:
            raise Malformed(f"`/{parts[0]}` is reserved: no owner may have it")
        return cls(parts)

    def holds(self, template: Template) -> bool:
        """Whether every identity of `template` is below it: its first segments must be fixed text."""
        own = tuple((segment, False) for segment in self.segments)
        return len(template.segments) > len(own) and template.segments[: len(own)] == own

    def __str__(self) -> str:
        return "/" + "/".join(self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """What one team may say in its rules; `nodes` and `when` are added to each of them."""

    name: str
    paths: tuple[Path, ...]
    nodes: Condition | None = None
    when: Condition | None = None
    dns_names: tuple[str, ...] = ()
    """Names below these, or these themselves, may stand in a certificate."""
    federates_with: tuple[str, ...] = ()

    def faults(self, rule: Rule) -> Iterator[tuple[str, str]]:
        """Each key of `rule` that says more than its owner may, and why."""
        if not any(path.holds(rule.template) for path in self.paths):
            allowed = " or ".join(f"`{path}/…`" for path in self.paths)
            yield "spiffe_id", f"`{self.name}` may only name identities below {allowed}"
        for name in rule.dns_names:
            if not any(name == one or name.endswith("." + one) for one in self.dns_names):
                yield "dns_names", f"`{name}` is not below a DNS name of `{self.name}`"
        for domain in rule.federates_with:
            if domain not in self.federates_with and EVERY_DOMAIN not in self.federates_with:
                yield "federates_with", f"`{self.name}` may not federate with `{domain}`"

    def bounded(self, rule: Rule) -> Rule:
        """`rule` under the owner's name and conditions."""
        return replace(
            rule,
            name=f"{self.name}/{rule.name}",
            nodes=_both(self.nodes, rule.nodes),
            when=Condition((*(self.when.groups if self.when else ()), *rule.when.groups)),
        )


def _both(one: Condition | None, other: Condition | None) -> Condition | None:
    if one is None or other is None:
        return one or other
    return Condition(tuple(dict.fromkeys((*one.groups, *other.groups))))
