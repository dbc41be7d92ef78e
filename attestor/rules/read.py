"""Rule files: strict YAML -> RuleSet, refused whole with every fault and its line.

rules:
  - name: orders-agent
    nodes: [node:name:web-1]                # what the server verified; `[node:*]` says any node
    when:
      - unix:uid:1000                       # each of these
      - any: [unix:gid:100, unix:gid:101]   # and one of these
    spiffe_id: /agent/orders
    bind: process
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from attestor.errors import BadRules
from attestor.instance import Binding, Strength
from attestor.rules.model import ANY_NODE, Condition, Rule, RuleSet
from attestor.rules.owner import EVERY_DOMAIN, Owner, parse_name
from attestor.rules.suspect import suspicions
from attestor.rules.template import Template
from attestor.selector import Selector
from ca.errors import Malformed
from ca.runtime.document import Document, read
from ca.runtime.settings import BadSettings, Duration, Settings, loads, parsed_by
from ca.spiffe.id import TrustDomain

LONGEST_HINT = 1024
MOST_RULES = 10_000

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this server allows a rule to say."""

    trust_domain: TrustDomain
    longest_x509: timedelta
    longest_jwt: timedelta
    without_nodes: bool = False
    """Whether `nodes` may be left out; only `sojourn up`, which has one node and made it itself, says so."""
    strict: bool = False
    """Whether what is suspicious is refused instead of warned of."""


def _hint(text: str) -> str:
    if len(text.encode()) > LONGEST_HINT or not text.isprintable():
        raise Malformed(f"a hint must be printable and not longer than {LONGEST_HINT} bytes")
    return text


def _dns_name(text: str) -> str:
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in text.split(".")):
        raise Malformed("expected a DNS name in lower case without a wildcard")
    return text


def _audience(text: str) -> str:
    if not text or len(text) > 2048 or not text.isprintable():
        raise Malformed("an audience must be a printable text")
    return text


def _domain(text: str) -> str:
    return text if text == EVERY_DOMAIN else TrustDomain.parse(text).name


def condition(value: Any) -> Condition:
    """Read `[selector, {any: [selector, …]}, …]`. Raises Malformed."""
    if not isinstance(value, list) or not value:
        raise Malformed("expected a list with at least one selector")
    return Condition(tuple(_group(one) for one in value))


def _group(value: Any) -> tuple[Selector, ...]:
    if isinstance(value, str):
        return (Selector.parse(value),)
    members = value.get("any") if isinstance(value, dict) and set(value) == {"any"} else None
    if not isinstance(members, list) or not members or not all(isinstance(one, str) for one in members):
        raise Malformed("expected a selector such as `unix:uid:1000`, or `any:` with a list of selectors")
    return tuple(Selector.parse(one) for one in members)


def _condition(value: Any) -> Any:
    try:
        return value if isinstance(value, Condition) else condition(value)
    except Malformed as error:
        raise PydanticCustomError("sojourn", "{text}", {"text": str(error)}) from None


ConditionField = Annotated[Condition, PlainValidator(_condition)]
"""A field of settings that holds a condition."""


class Entry(Settings):
    """One rule as it is written."""

    name: Annotated[str, parsed_by(parse_name)]
    nodes: ConditionField | None = None
    when: ConditionField
    spiffe_id: str
    hint: Annotated[str, parsed_by(_hint)] = ""
    x509_ttl: Duration | None = None
    jwt_ttl: Duration | None = None
    bind: Annotated[Binding, parsed_by(Binding.parse)] = Binding.NONE
    children: bool = False
    dns_names: tuple[Annotated[str, parsed_by(_dns_name)], ...] = ()
    audiences: tuple[Annotated[str, parsed_by(_audience)], ...] = ()
    federates_with: tuple[Annotated[str, parsed_by(_domain)], ...] = ()
    strength: Annotated[Strength, parsed_by(Strength.parse)] = Strength.WEAK_PEER


class RuleFile(Settings):
    """A whole file."""

    rules: Annotated[tuple[Entry, ...], Field(max_length=MOST_RULES)]


def read_rules(files: Sequence[tuple[str, str]], terms: Terms) -> RuleSet:
    """Read `(source, text)` of every file into one set, in that order; see `read_part` and `rule_set`."""
    return rule_set(read_part(files, terms), terms)


def rule_set(rules: Sequence[Rule], terms: Terms) -> RuleSet:
    """The set of `rules`, with a warning for whatever is probably not meant.

    Raises:
        BadRules: there is such a thing, and `terms` are strict.
    """
    warnings = suspicions(rules)
    if terms.strict and warnings:
        raise BadRules(warnings)
    return RuleSet(trust_domain=terms.trust_domain, rules=tuple(rules), warnings=tuple(warnings))


def read_part(files: Sequence[tuple[str, str]], terms: Terms, owner: Owner | None = None) -> tuple[Rule, ...]:
    """The rules of `owner`, or of nobody in particular.

    Raises:
        BadRules: with every fault of every file, each beginning with its file and line.
    """
    errors: list[str] = []
    rules: list[Rule] = []
    for source, text in files:
        try:
            document = read(text, source)
        except BadSettings as error:
            errors.extend(error.errors)
            continue
        try:
            loads(text, source, RuleFile)
        except BadSettings as error:
            errors.extend(error.errors)
        for index, entry in _entries(document):
            rules.extend(_rule(document, index, entry, terms, owner, errors))
    errors.extend(_doubles(rules))
    if errors:
        raise BadRules(errors)
    return tuple(rules)


def _entries(document: Document) -> Iterator[tuple[int, Entry]]:
    """Those entries that are well formed by themselves, so that one fault does not hide another's."""
    listed = document.value.get("rules") if isinstance(document.value, dict) else None
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        try:
            yield index, Entry.model_validate_json(json.dumps(raw))
        except ValidationError:
            continue


def _rule(  # noqa: PLR0917 - where it stands, what it says, what it may say
    document: Document, index: int, entry: Entry, terms: Terms, owner: Owner | None, errors: list[str]
) -> list[Rule]:
    """The rule, or none and its faults in `errors`."""
    faults = _faults(entry, terms, owner)
    rule = None
    try:
        template = Template.parse(entry.spiffe_id, terms.trust_domain)
    except Malformed as error:
        faults.append(("spiffe_id", str(error)))
    else:
        any_node = entry.nodes is None or entry.nodes == Condition.all_of([ANY_NODE])
        given = {key: getattr(entry, key) for key in Entry.model_fields if key not in {"nodes", "spiffe_id"}}
        source = f"{document.source}:{document.line(('rules', index))}"
        rule = Rule(**given, nodes=None if any_node else entry.nodes, template=template, source=source)
        faults.extend(owner.faults(rule) if owner else ())
    errors.extend(f"{document.at(('rules', index, key))}: {words}" for key, words in faults)
    if faults or rule is None:
        return []
    return [owner.bounded(rule) if owner else rule]


def _faults(entry: Entry, terms: Terms, owner: Owner | None) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    if entry.nodes is None and not terms.without_nodes and (owner is None or owner.nodes is None):
        faults.append(("nodes", "is required: say which nodes the rule holds for, or `[node:*]` for any"))
    groups = entry.nodes.groups if entry.nodes else ()
    if groups != ((ANY_NODE,),) and any(ANY_NODE in group for group in groups):
        faults.append(("nodes", "`node:*` must stand alone"))
    if any(one.type == "node" for group in entry.when.groups for one in group):
        faults.append(("when", "a selector of the node must stand under `nodes`: here it would be the node's own word"))
    if terms.trust_domain.name in entry.federates_with:
        faults.append(("federates_with", "names our own trust domain: expected foreign ones"))
    bounds = (("x509_ttl", entry.x509_ttl, terms.longest_x509), ("jwt_ttl", entry.jwt_ttl, terms.longest_jwt))
    for key, ttl, longest in bounds:
        if ttl is not None and not timedelta(seconds=5) <= ttl <= longest:
            faults.append((key, f"expected 5 seconds to {int(longest.total_seconds())} seconds"))
    return faults


def _doubles(rules: Sequence[Rule]) -> list[str]:
    first: dict[str, Rule] = {}
    return [
        f"{rule.source}: name: there is a rule `{rule.name}` already, in {first[rule.name].source}"
        for rule in rules
        if first.setdefault(rule.name, rule) is not rule
    ]
