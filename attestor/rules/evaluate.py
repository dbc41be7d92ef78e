"""Which identities an attested instance is entitled to, and why the other rules gave it none."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.instance import Strength
from attestor.rules.model import Rule, RuleSet, said
from attestor.selector import Selectors
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when attesting.

    `node` holds what the server itself verified about the node; `workload` is the node agent's word. `inherited` are
    the identities given to live instances this process descends from.
    """

    node: Selectors
    workload: Selectors
    strength: Strength
    inherited: frozenset[SpiffeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Entitled:
    """One identity and the rule that gives it; `hint` is empty where an earlier identity has the same one."""

    id: SpiffeId
    rule: Rule
    hint: str


@dataclass(frozen=True, slots=True)
class Missed:
    """A rule that gave nothing. `here` says whether it holds for this node: if not, the node must not learn of it."""

    rule: str
    reason: str
    here: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of it, in the order of the rules."""

    entitled: tuple[Entitled, ...]
    missed: tuple[Missed, ...]


def evaluate(rules: RuleSet, facts: Facts) -> Outcome:
    """What `facts` are entitled to; an identity given by two rules is the first one's."""
    entitled: dict[SpiffeId, Entitled] = {}
    missed: list[Missed] = []
    hints: set[str] = set()
    for rule in rules.rules:
        if not rule.holds_on(facts.node):
            missed.append(Missed(rule.name, f"it does not hold on this node: {_elsewhere(rule, facts)}", here=False))
            continue
        part = next((one.rule.name for one in entitled.values() if one.rule.own), None)
        found = (
            _apply(rule, facts) if part is None else f"the process is a part of Sojourn, by `{part}`, and nothing else"
        )
        if isinstance(found, str):
            missed.append(Missed(rule.name, found, here=True))
        elif found in entitled:
            reason = f"the rule `{entitled[found].rule.name}` already gives `{found}`"
            missed.append(Missed(rule.name, reason, here=True))
        else:
            entitled[found] = Entitled(found, rule, "" if rule.hint in hints else rule.hint)
            hints.add(rule.hint)
    return Outcome(tuple(entitled.values()), tuple(missed))


def _apply(rule: Rule, facts: Facts) -> SpiffeId | str:
    """The identity the rule gives, or why it gives none."""
    unmet = rule.when.unmet(facts.workload)
    if unmet is not None:
        return f"the process does not have {said(unmet)}"
    if not facts.strength.at_least(rule.strength):
        return f"it asks for an attestation of strength `{rule.strength}`, this one is `{facts.strength}`"
    values = frozenset(one for one in facts.workload if one.type != "node") | frozenset(
        one for one in facts.node if one.type == "node"
    )
    try:
        given = rule.template.fill(values)
    except Malformed as error:
        return str(error)
    if given in facts.inherited and not rule.children:
        return f"the process descends from one that has `{given}`, and the rule does not say `children: true`"
    return given


def _elsewhere(rule: Rule, facts: Facts) -> str:
    unmet = rule.nodes.unmet(facts.node) if rule.nodes is not None else None
    return f"the node does not have {said(unmet)}" if unmet else "it names no node"
