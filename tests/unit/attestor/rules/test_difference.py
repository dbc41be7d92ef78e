"""What another set of rules would give and take."""

from __future__ import annotations

from datetime import timedelta

import pytest

from attestor.instance import Strength
from attestor.rules.difference import rule_changes, shift
from attestor.rules.evaluate import Evaluation, Facts
from attestor.rules.read import Terms, read_rules
from attestor.selector import parse_all
from ca.spiffe.id import TrustDomain

TERMS = Terms(
    trust_domain=TrustDomain.parse("example.org"), longest_x509=timedelta(hours=1), longest_jwt=timedelta(hours=1)
)
FACTS = Facts(node=parse_all(["node:name:n"]), workload=parse_all(["unix:uid:7"]), strength=Strength.OWN_UID)


def rules(**entries: str) -> Evaluation:
    """A set: by the name of each rule its path, and what else it says."""
    lines = [
        f'  - {{name: {name}, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: {said}}}'
        for name, said in entries.items()
    ]
    return Evaluation(read_rules([("r.yaml", "rules:\n" + "\n".join(lines))], TERMS))


def paths(ids: tuple[object, ...]) -> list[str]:
    """Without the trust domain."""
    return [str(one).removeprefix("spiffe://example.org") for one in ids]


BEFORE = rules(a="/a", b="/b")


@pytest.mark.parametrize(
    ("after", "gains", "loses", "changed", "default"),
    [
        (rules(a="/a", b="/b"), [], [], [], None),
        (rules(a="/a", b="/b", c="/c"), ["/c"], [], [], None),
        (rules(b="/b"), [], ["/a"], [], "/b"),
        (rules(b="/b", a="/a"), [], [], [], "/b"),
        (rules(a="/a, x509_ttl: 5m", b="/b"), [], [], ["/a"], None),
        (rules(a="/a, federates_with: [x.example]", b="/b"), [], [], ["/a"], None),
        (rules(z="/a", b="/b"), [], [], ["/a"], None),
        (rules(a="/x", b="/b"), ["/x"], ["/a"], [], "/x"),
    ],
)
def test_an_instance_gains_and_loses(
    after: Evaluation, gains: list[str], loses: list[str], changed: list[str], default: str | None
) -> None:
    """Each way to differ, and no difference at all."""
    found = shift(BEFORE, after, FACTS)
    assert (paths(found.gains), paths(found.loses), paths(found.changed)) == (gains, loses, changed)
    assert (None if found.default is None else found.default.path) == default
    assert bool(found) is bool(gains or loses or changed or default)


def test_rules_come_go_change_and_move() -> None:
    """By name; a rule that moved may have become somebody's default."""
    found = rule_changes(BEFORE.rules, rules(b="/b", a="/a", c="/c").rules)
    assert (found.added, found.removed, set(found.changed)) == (("c",), (), {"a", "b"})
    found = rule_changes(BEFORE.rules, rules(b="/b, hint: h").rules)
    assert (found.added, found.removed, found.changed) == ((), ("a",), ("b",))
