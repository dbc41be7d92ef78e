"""What a policy must be, besides valid to Cedar: named, honest about where its facts come from, and able to apply.

Cedar accepts what would quietly never do what its author meant. These checks refuse it when it is loaded:

* a policy without an `@id`, or with one that is taken: its decisions could not be told apart;
* a `permit` that reads a claimed fact, in any disguise: agents would write their own permission (traps 14);
* the name of a thing that can't exist (`AgentPath::"/agents"`): such a forbid would never fire;
* a template: nothing fills its slots here, so it would do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from cedarpy import pst

from broker.model.ids import parse_task
from broker.model.scope import Pattern
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_LONGEST_REASON = 300
_ANNOTATIONS = frozenset({"id", "reason"})
_CLAIMED = "claimed"
_READABLE = frozenset({"attested", "broker", "enforcement_point"})


def faults(tree: pst.Template, reserved: frozenset[str]) -> Iterator[str]:
    """Everything that is wrong with one policy, each as a sentence without its place."""
    yield from _name_faults(tree.annotations, reserved)
    if _has_slots(tree):
        yield "is a template, whose slots nothing fills here; write the policy out for whom it is meant"
    if tree.effect == "permit":
        yield from dict.fromkeys(_claims(tree.clauses))
    yield from _literal_faults(tree)


def _name_faults(annotations: Mapping[str, str], reserved: frozenset[str]) -> Iterator[str]:
    name = annotations.get("id", "")
    if not name:
        yield 'has no `@id("…")`, expected one by which its decisions are told'
    elif not _ID.fullmatch(name):
        yield "has an `@id` that is not made of `a-z`, `0-9`, `.`, `_` and `-`, at most 64 of them"
    elif name in reserved:
        yield f"may not be called `{name}`, under which the broker itself denies"
    for unknown in sorted(set(annotations) - _ANNOTATIONS):
        yield f"has the unknown annotation `@{unknown[:40]}`, expected only `@id` and `@reason`"
    reason = annotations.get("reason")
    if reason is not None and (not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable()):
        yield f"has a `@reason` that is empty, longer than {_LONGEST_REASON} characters or not printable"


def _has_slots(tree: pst.Template) -> bool:
    return any(isinstance(getattr(scope, "entity", None), pst.Slot) for scope in (tree.principal, tree.resource))


def _claims(node: Any) -> Iterator[str]:
    """Every way a permit's conditions could reach a claimed fact.

    `context` may only be followed at once by a source that is not the agent's own word; used whole (compared, put
    into a record, chosen by an `if`) it would carry the claims along.
    """
    if isinstance(node, pst.GetAttr) and isinstance(node.base, pst.Var) and node.base.name == "context":
        if node.attr not in _READABLE:
            yield _claim_words(node.attr)
    elif isinstance(node, pst.HasAttr) and isinstance(node.base, pst.Var) and node.base.name == "context":
        if node.attrs[0] not in _READABLE:
            yield _claim_words(node.attrs[0])
    elif isinstance(node, pst.Var) and node.name == "context":
        yield "is a permit that uses `context` as a whole, expected `context.attested…` or `context.broker…`"
    else:
        for child in _children(node):
            yield from _claims(child)


def _claim_words(source: str) -> str:
    if source == _CLAIMED:
        return "is a permit that reads `context.claimed`; what an agent says of itself may only forbid"
    return f"is a permit that reads `context.{source[:40]}`, expected `context.attested…` or `context.broker…`"


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield from node.values()
    elif isinstance(node, tuple):
        yield from node
    elif is_dataclass(node):
        for one in fields(node):
            yield getattr(node, one.name)


def _literal_faults(tree: pst.Template) -> Iterator[str]:
    for uid in sorted(pst.entity_uids(tree), key=str):
        read = _READERS.get(str(uid.type))
        if read is None:
            continue
        try:
            read(uid.id)
        except Malformed as error:
            yield f"names `{str(uid)[:120]}`, which nothing can be: {error}"


def _path(text: str) -> None:
    if not SpiffeId.parse(text).path:
        raise Malformed("expected a path behind the trust domain")


def _domain(text: str) -> None:
    if str(TrustDomain.parse(text)) != text:
        raise Malformed("expected the bare name of a trust domain")


def _name(text: str) -> None:
    if Pattern.parse(text).is_prefix:
        raise Malformed("expected a name, not a prefix")


def _role(text: str) -> None:
    _name(text)
    if "/" not in text:
        raise Malformed("expected `target/role`")


_READERS: Mapping[str, Callable[[str], object]] = {
    "Agent": _path,
    "AgentPath": _path,
    "TrustDomain": _domain,
    "Target": _name,
    "Role": _role,
    "Tool": _name,
    "Task": parse_task,
}
"""How the name of each kind of thing is read."""
