"""A compiled policy set, and the few of its policies that can matter to one request.

Cedar looks at every policy of a set; of a thousand only a handful can apply to one action on one resource. The slice is
an over-approximation by the two scopes that are known before anything is evaluated: a policy is left out only when its
action or its resource can't match. What says nothing (`resource`), what says a group (`in`) or a type (`is`), and what
has a slot to be filled is kept (traps 14). `tests/laws/test_policy_slices.py` compares sliced and unsliced answers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

import cedarpy
from cedarpy import pst

_COMPILED = 1024
_ACTION = "Action"


@dataclass(frozen=True, slots=True, order=True)
class Uid:
    """Cedar's name of one thing: its type and its id."""

    type: str
    id: str

    def to_json(self) -> dict[str, str]:
        """The form of requests and entities."""
        return {"type": self.type, "id": self.id}

    def __str__(self) -> str:
        return f'{self.type}::"{self.id}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy: its `@id`, what it says when it decides, where it was written, and its syntax tree."""

    id: str
    reason: str
    place: str
    tree: pst.Template

    @property
    def permits(self) -> bool:
        """Whether it is a permit, not a forbid."""
        return self.tree.effect == "permit"


class PolicySet:
    """Policies that were judged together, compiled once. Immutable, but for what it remembers of its own compiling."""

    def __init__(self, policies: Iterable[Policy], schema: cedarpy.Schema, version: str) -> None:
        self.version = version
        self.schema = schema
        self.policies: Mapping[str, Policy] = {policy.id: policy for policy in policies}
        self._above = _action_groups(schema)
        self._places: dict[tuple[str, Uid | str | None], list[str]] = defaultdict(list)
        self._values: dict[str, set[int | str]] = defaultdict(set)
        for policy in self.policies.values():
            self._index(policy)
        self.named = frozenset(
            Uid(str(uid.type), uid.id) for policy in self.policies.values() for uid in pst.entity_uids(policy.tree)
        )
        self._compiled = lru_cache(_COMPILED)(self._compile)
        self._known = lru_cache(_COMPILED)(self._read)

    @property
    def whole(self) -> cedarpy.PolicySet:
        """Every policy, compiled; what a slice is compared with."""
        return self._compiled(frozenset(self.policies))

    def candidates(self, action: str, resource: Uid, above: Iterable[Uid] = ()) -> frozenset[str]:
        """The ids of the policies that can apply to `action` on `resource`, which lies in all of `above`."""
        keys: list[Uid | str | None] = [None, resource.type, resource, *above]
        return frozenset(name for key in keys for name in self._places.get((action, key), ()))

    def sliced(self, action: str, resource: Uid, above: Iterable[Uid] = ()) -> cedarpy.PolicySet:
        """The candidates, compiled."""
        return self._compiled(self.candidates(action, resource, above))

    def entities(self, text: str) -> cedarpy.Entities:
        """Entities read against the schema, which also brings the hierarchy of actions. Raises ValueError."""
        return self._known(text)

    def literals(self, action: str) -> frozenset[int | str]:
        """Every number and text that stands in the conditions of policies for `action`; values worth trying."""
        return frozenset(self._values.get(action, ()))

    def _compile(self, names: frozenset[str]) -> cedarpy.PolicySet:
        trees = {name: self.policies[name].tree for name in sorted(names)}
        static = {name: tree for name, tree in trees.items() if not _has_slot(tree)}
        templates = {name: tree for name, tree in trees.items() if _has_slot(tree)}
        return cedarpy.PolicySet.from_pst(pst.PolicySet(templates=templates, static_policies=static, template_links=()))

    def _read(self, text: str) -> cedarpy.Entities:
        return cedarpy.Entities.from_json_str(text, self.schema)

    def _index(self, policy: Policy) -> None:
        key = _key(policy.tree.resource)
        values = set(_literals(policy.tree.clauses))
        for action in self._actions(policy.tree.action):
            self._places[action, key].append(policy.id)
            self._values[action] |= values

    def _actions(self, scope: pst.ActionConstraint) -> Sequence[str]:
        if isinstance(scope, pst.ScopeAny):
            return list(self._above)
        named = {scope.entity.id} if isinstance(scope, pst.ActionEq) else {uid.id for uid in scope.entities}
        return [action for action, above in self._above.items() if named & {action, *above}]


def _key(scope: pst.PrincipalOrResourceConstraint) -> Uid | str | None:
    """Under what a policy is found: one entity, one type, or None for any resource at all."""
    if isinstance(scope, pst.ScopeIs):
        return str(scope.entity_type)
    if isinstance(scope, pst.ScopeAny) or isinstance(scope.entity, pst.Slot):
        return None
    return Uid(str(scope.entity.type), scope.entity.id)


def _literals(node: Any) -> Iterator[int | str]:
    """Walk a syntax tree, whatever its nodes are."""
    if isinstance(node, (pst.LongLit, pst.StringLit)):
        yield node.value
    elif isinstance(node, Mapping):
        for one in node.values():
            yield from _literals(one)
    elif isinstance(node, tuple):
        for one in node:
            yield from _literals(one)
    elif is_dataclass(node):
        for one in fields(node):
            yield from _literals(getattr(node, one.name))


def _has_slot(tree: pst.Template) -> bool:
    scopes = (tree.principal, tree.resource)
    return any(isinstance(getattr(scope, "entity", None), pst.Slot) for scope in scopes)


def _action_groups(schema: cedarpy.Schema) -> dict[str, frozenset[str]]:
    """Every action and group of the schema, with all the groups above it."""
    found = json.loads(str(cedarpy.Entities.from_json_str("[]", schema)))
    return {
        one["uid"]["id"]: frozenset(parent["id"] for parent in one["parents"])
        for one in found
        if one["uid"]["type"] == _ACTION
    }
