"""Identity rules as values: nodes and selectors -> SPIFFE ID, evaluated when attesting.

What a process claims about itself reaches the server through a node agent, and one bad node agent must not be worth
every identity of the trust domain: so each rule names the nodes it holds for, by selectors the *server* verified when
it admitted the node (traps 2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from attestor.instance import Binding, Strength
from attestor.rules.template import Template
from attestor.selector import Selector, Selectors
from ca.spiffe.id import TrustDomain

ANY_NODE = Selector("node", "*")
"""How a rule says in so many words that it holds on every admitted node."""
DIRECT = Selector("node", "direct")
"""What stands in a node's place where a pod or job attests by itself, without a node agent."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Every group must have one of its selectors among those found; a group of one is a plain demand."""

    groups: tuple[tuple[Selector, ...], ...]

    @classmethod
    def all_of(cls, selectors: Iterable[Selector]) -> Condition:
        """Each of `selectors` must be there."""
        return cls(tuple((one,) for one in selectors))

    def unmet(self, found: Selectors) -> tuple[Selector, ...] | None:
        """The first group of which nothing was found; None when the condition holds."""
        return next((group for group in self.groups if found.isdisjoint(group)), None)

    @property
    def demanded(self) -> Selectors:
        """The selectors that must be there in any case."""
        return frozenset(group[0] for group in self.groups if len(group) == 1)

    @property
    def texts(self) -> list[str]:
        """For people, one line per group."""
        return [said(group) for group in self.groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `nodes` is None where any node will do, a lifetime is None where the server's default holds.

    The name of a rule that belongs to an owner is `owner/name`.
    """

    name: str
    source: str
    nodes: Condition | None
    when: Condition
    template: Template
    hint: str = ""
    x509_ttl: timedelta | None = None
    jwt_ttl: timedelta | None = None
    bind: Binding = Binding.NONE
    children: bool = False
    dns_names: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()
    strength: Strength = Strength.WEAK_PEER
    own: bool = False
    """Whether it names one of Sojourn's own parts; such a process gets no other identity."""

    def holds_on(self, node: Selectors) -> bool:
        """Whether it is meant for a node with the verified selectors `node`."""
        if self.nodes is None:
            return DIRECT not in node  # any node is a node: what comes without one must be named
        return self.nodes.unmet(node) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """The rules in force, in the order of their files: the first one that matches gives the default identity."""

    trust_domain: TrustDomain
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Another one whenever a decision could be another one."""
        plain = [[str(self.trust_domain)], *(_plain(rule) for rule in self.rules)]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def said(group: tuple[Selector, ...]) -> str:
    """A group for people: `unix:uid:1000`, or `one of unix:gid:1, unix:gid:2`."""
    text = ", ".join(str(one) for one in group)
    return f"one of {text}" if len(group) > 1 else text


def _plain(rule: Rule) -> list[object]:
    return [
        rule.name,
        None if rule.nodes is None else rule.nodes.texts,
        rule.when.texts,
        str(rule.template),
        rule.hint,
        str(rule.x509_ttl),
        str(rule.jwt_ttl),
        rule.bind,
        rule.children,
        rule.dns_names,
        rule.audiences,
        rule.federates_with,
        rule.strength,
        rule.own,
    ]
