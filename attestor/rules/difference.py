"""Who would gain and who would lose an identity if other rules were in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attestor.rules.evaluate import Entitled, Evaluation, Facts
from attestor.rules.model import Rule, RuleSet
from ca.spiffe.id import SpiffeId


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """The names of rules that come, go, or say something else. A rule that only moved is among the changed ones."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What one instance would gain and lose; `default` is its default identity afterwards, if that is another one.

    `changed` are identities it keeps in another form: another lifetime, hint, DNS name, audience or rule.
    """

    gains: tuple[SpiffeId, ...]
    loses: tuple[SpiffeId, ...]
    changed: tuple[SpiffeId, ...]
    default: SpiffeId | None

    def __bool__(self) -> bool:
        return bool(self.gains or self.loses or self.changed or self.default)


def rule_changes(before: RuleSet, after: RuleSet) -> RuleChanges:
    """How the two sets differ, by the names of their rules."""
    old, new = _by_name(before), _by_name(after)
    kept = zip((name for name in old if name in new), (name for name in new if name in old), strict=True)
    moved = {name for pair in kept if pair[0] != pair[1] for name in pair}
    return RuleChanges(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and (name in moved or _says(old[name]) != _says(new[name]))),
    )


def shift(before: Evaluation, after: Evaluation, facts: Facts) -> Shift:
    """What `facts` would gain and lose."""
    old, new = before.entitled(facts), after.entitled(facts)
    had, has = {one.id: one for one in old}, {one.id: one for one in new}
    return Shift(
        gains=tuple(one for one in has if one not in had),
        loses=tuple(one for one in had if one not in has),
        changed=tuple(one for one in has if one in had and _form(has[one]) != _form(had[one])),
        default=_first(new) if _first(new) != _first(old) else None,
    )


def _by_name(rules: RuleSet) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules.rules}


def _says(rule: Rule) -> tuple[object, ...]:
    """Everything but the place it stands in."""
    return tuple(getattr(rule, key) for key in Rule.__dataclass_fields__ if key != "source")


def _form(entitled: Entitled) -> tuple[object, ...]:
    rule = entitled.rule
    return (
        entitled.hint,
        rule.name,
        rule.x509_ttl,
        rule.jwt_ttl,
        rule.bind,
        rule.dns_names,
        rule.audiences,
        rule.federates_with,
    )


def _first(entitled: Sequence[Entitled]) -> SpiffeId | None:
    return entitled[0].id if entitled else None
