"""What is allowed and probably not meant (traps 9).

On Unix the boundary is the uid. A path or a digest only narrows it, an interpreter's path says nothing about the
program it runs, and two identities under one uid can be taken from one another. In a cluster it is the namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attestor.instance import Binding
from attestor.rules.model import Rule
from attestor.selector import Selector

_INTERPRETER = re.compile(
    r"(python|pypy|ruby|perl|php|lua|node|nodejs|deno|bun|java|guile|tclsh|wish|Rscript|erl|beam\.smp|mono|dotnet"
    r"|sh|bash|dash|zsh|ksh|fish|busybox|env|uv|sudo|awk|gawk|mawk)[0-9.]*"
)
_NARROWS = ("path:", "sha256:")
_BOUNDARY = ("uid:", "user:")
_AUTHORED = ("ns:", "pod-uid:", "pod-owner-uid:")
_IMAGE = ("container-image:", "pod-image:")


def suspicions(rules: Sequence[Rule]) -> list[str]:
    """One sentence for each, with the rule's place."""
    found = [
        *_interpreters(rules),
        *_without_boundary(rules),
        *_without_namespace(rules),
        *_movable_images(rules),
        *_bound_to_what_is_not_asked_for(rules),
        *_shared(rules),
    ]
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
        if all(_only_narrows(one) for group in demanded for one in group):
            yield f"{rule.source}: when: a path, digest or ancestor only narrows: also name the uid or the user"


def _without_namespace(rules: Sequence[Rule]) -> Iterator[str]:
    """Labels, names and images of a pod are its author's word, and authors are kept apart by namespaces."""
    for rule in rules:
        asked = [one for group in rule.when.groups for one in group if one.type == "k8s"]
        if asked and not any(one.type == "k8s" and one.value.startswith(_AUTHORED) for one in rule.when.demanded):
            yield f"{rule.source}: when: whoever may create pods anywhere can be this one: also name `k8s:ns`"


def _movable_images(rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        for one in (one for group in rule.when.groups for one in group):
            if one.type == "k8s" and one.value.startswith(_IMAGE) and "@sha256:" not in one.value:
                yield f"{rule.source}: when: `{one}` is a tag, which is another image tomorrow: name the digest"


def _bound_to_what_is_not_asked_for(rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        kind = {Binding.CONTAINER: "k8s", Binding.POD: "k8s", Binding.UNIT: "systemd"}.get(rule.bind)
        if kind and not any(one.type == kind for one in rule.when.demanded):
            yield (
                f"{rule.source}: bind: a process in no {rule.bind} is bound to itself: also ask for a `{kind}` selector"
            )


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


def _only_narrows(selector: Selector) -> bool:
    return selector.type in {"ancestor", "parent"} or (selector.type == "unix" and selector.value.startswith(_NARROWS))


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
