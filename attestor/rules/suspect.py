"""What is allowed and probably not meant (traps 9).

On Unix the boundary is the uid. A path or a digest only narrows it, an interpreter's path says nothing about the
program it runs, and two identities under one uid can be taken from one another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attestor.rules.model import Rule
from attestor.selector import Selector

_INTERPRETER = re.compile(
    r"(python|pypy|ruby|perl|php|lua|node|nodejs|deno|bun|java|guile|tclsh|wish|Rscript|erl|beam\.smp|mono|dotnet"
    r"|sh|bash|dash|zsh|ksh|fish|busybox|env|uv|sudo|awk|gawk|mawk)[0-9.]*"
)
_NARROWS = ("path:", "sha256:")
_BOUNDARY = ("uid:", "user:")


def suspicions(rules: Sequence[Rule]) -> list[str]:
    """One sentence for each, with the rule's place."""
    found = [*_interpreters(rules), *_without_boundary(rules), *_shared(rules)]
    return list(dict.fromkeys(found))


def _interpreters(rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        for one in (one for group in rule.when.groups for one in group):
            if one.type == "unix" and one.value.startswith("path:"):
                program = one.value.rpartition("/")[2]
                if _INTERPRETER.fullmatch(program):
                    yield f"{rule.source}: when: `{one}` is an interpreter, and its path attests no program"


def _without_boundary(rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        demanded = rule.when.groups
        if all(one.type == "unix" and one.value.startswith(_NARROWS) for group in demanded for one in group):
            yield f"{rule.source}: when: a path or digest only narrows: also name the uid or the user"


def _shared(rules: Sequence[Rule]) -> Iterator[str]:
    seen: dict[Selector, list[Rule]] = {}
    for rule in rules:
        for boundary in sorted(one for one in rule.when.demanded if _is_boundary(one)):
            earlier = seen.setdefault(boundary, [])
            clash = next((one for one in earlier if _differ(one, rule) and _may_share_a_node(one, rule)), None)
            if clash:
                yield (
                    f"{rule.source}: when: `{boundary}` also gets the identity of the rule `{clash.name}`: processes of"
                    " one uid can take each other's"
                )
            earlier.append(rule)


def _differ(one: Rule, other: Rule) -> bool:
    return str(one.template) != str(other.template)


def _is_boundary(selector: Selector) -> bool:
    return selector.type == "unix" and selector.value.startswith(_BOUNDARY)


def _may_share_a_node(one: Rule, other: Rule) -> bool:
    if one.nodes is None or other.nodes is None:
        return True
    names, others = _named(one), _named(other)
    return not (names and others and names.isdisjoint(others))


def _named(rule: Rule) -> frozenset[Selector]:
    demanded = rule.nodes.demanded if rule.nodes else frozenset()
    return frozenset(one for one in demanded if one.type == "node" and one.value.startswith("name:"))
