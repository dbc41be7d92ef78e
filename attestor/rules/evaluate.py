"""Which identities an attested instance is entitled to, and why the other rules gave it none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from attestor.instance import Strength
from attestor.rules.index import Index
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
    """One identity and the rule that gives it; `hint` is empty where an earlier identity has the same one.

    Nothing of one that has an `ends_at` lives longer than that; no rule of a file gives one of those.
    """

    id: SpiffeId
    rule: Rule
    hint: str
    ends_at: datetime | None = None


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


class Evaluation:
    """One set of rules, made ready to be asked often."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.version = rules.version
        self._index = Index.of(rules.rules)
        self.federating = tuple(rule for rule in rules.rules if rule.federates_with)
        """Those that send foreign bundles along."""

    def entitled(self, facts: Facts) -> tuple[Entitled, ...]:
        """What `facts` are entitled to; only rules that can match are looked at."""
        giving = _Giving(facts)
        for place in self._index.candidates(node=facts.node, workload=facts.workload):
            giving.consider(self.rules.rules[place])
        return giving.entitled

    def explain(self, facts: Facts) -> Outcome:
        """The same, and of every other rule why it gives nothing."""
        giving = _Giving(facts)
        missed = [found for rule in self.rules.rules if (found := giving.consider(rule)) is not None]
        return Outcome(giving.entitled, tuple(missed))


class _Giving:
    """Rules considered one after the other; an identity given by two of them is the first one's."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._given: dict[SpiffeId, Entitled] = {}
        self._hints: set[str] = set()
        self._part = ""

    @property
    def entitled(self) -> tuple[Entitled, ...]:
        """What was given, in the order of the rules."""
        return tuple(self._given.values())

    def consider(self, rule: Rule) -> Missed | None:
        """Let `rule` give what it gives; answers why it gives nothing."""
        if not rule.holds_on(self._facts.node):
            reason = f"it does not hold on this node: {_elsewhere(rule, self._facts)}"
            return Missed(rule.name, reason, here=False)
        if self._part:
            return Missed(
                rule.name, f"the process is a part of Sojourn, by `{self._part}`, and nothing else", here=True
            )
        found = _apply(rule, self._facts)
        if isinstance(found, str):
            return Missed(rule.name, found, here=True)
        if found in self._given:
            reason = f"the rule `{self._given[found].rule.name}` already gives `{found}`"
            return Missed(rule.name, reason, here=True)
        self._given[found] = Entitled(found, rule, "" if rule.hint in self._hints else rule.hint)
        self._hints.add(rule.hint)
        self._part = rule.name if rule.own else ""
        return None


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
    return f"the node does not have {said(unmet)}" if unmet else "it does not name direct attestation"
