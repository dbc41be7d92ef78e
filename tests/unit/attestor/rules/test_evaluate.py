"""What rules give, and why others give nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from attestor.instance import Strength
from attestor.rules.evaluate import Evaluation, Facts, Outcome
from attestor.rules.read import Terms, read_rules
from attestor.selector import parse_all
from ca.spiffe.id import SpiffeId, TrustDomain

TERMS = Terms(
    trust_domain=TrustDomain.parse("example.org"), longest_x509=timedelta(hours=24), longest_jwt=timedelta(hours=1)
)
RULES = read_rules(
    [
        (
            "r.yaml",
            """\
rules:
  - name: first
    nodes: [node:name:n1]
    when: [unix:uid:7, {any: [unix:gid:1, unix:gid:2]}]
    spiffe_id: /first
    hint: main
  - name: second
    nodes: [{any: [node:name:n1, node:name:n2]}]
    when: [unix:uid:7]
    spiffe_id: /second/{unix.user}
    hint: main
  - name: third
    nodes: ["node:*"]
    when: [unix:uid:7]
    spiffe_id: /{node.name}/third
    strength: container
  - name: again
    nodes: ["node:*"]
    when: [unix:gid:1]
    spiffe_id: /first
""",
        )
    ],
    TERMS,
)


def ask(node: str, *workload: str, strength: str = "own-uid", inherited: tuple[str, ...] = ()) -> Outcome:
    """Evaluate for a process on a node."""
    facts = Facts(
        node=parse_all([f"node:name:{node}"]),
        workload=parse_all(workload),
        strength=Strength.parse(strength),
        inherited=frozenset(SpiffeId.parse(one) for one in inherited),
    )
    return Evaluation(RULES).explain(facts)


def reason(outcome: Outcome, rule: str) -> str:
    """Why a rule gave nothing."""
    return next(one.reason for one in outcome.missed if one.rule == rule)


def paths(outcome: Outcome) -> list[str]:
    """The paths of what is given."""
    return [one.id.path for one in outcome.entitled]


def test_identities_come_in_the_order_of_the_rules() -> None:
    """The first is the default one; a hint is given once."""
    found = ask("n1", "unix:uid:7", "unix:gid:1", "unix:user:ann", strength="pod")
    assert paths(found) == ["/first", "/second/ann", "/n1/third"]
    assert [one.hint for one in found.entitled] == ["main", "", ""]
    assert "already gives" in reason(found, "again")


def test_every_rule_that_gives_nothing_says_which_condition_failed() -> None:
    """Nodes, selectors, groups, strength, placeholders: each has its own sentence."""
    found = ask("n1", "unix:uid:7", "unix:gid:3")
    assert reason(found, "first") == "the process does not have one of unix:gid:1, unix:gid:2"
    assert "exactly one selector `unix:user:" in reason(found, "second")
    assert reason(found, "third") == "it asks for an attestation of strength `container`, this one is `own-uid`"
    assert reason(found, "again") == "the process does not have unix:gid:1"
    assert reason(ask("n2"), "first") == "it does not hold on this node: the node does not have node:name:n1"


def test_rules_of_other_nodes_are_marked() -> None:
    """So that nobody tells a node of them."""
    assert [one.rule for one in ask("n3").missed if not one.here] == ["first", "second"]


def test_a_node_placeholder_is_filled_from_what_the_server_verified() -> None:
    """A process that claims `node:name:n2` is still on n1."""
    found = ask("n1", "unix:uid:7", "node:name:n2", strength="pod")
    assert paths(found) == ["/n1/third"]


def test_a_child_does_not_inherit_by_default() -> None:
    """Unless the rule says `children: true`, an ancestor's identity is not given again (traps 9)."""
    found = ask("n1", "unix:uid:7", "unix:gid:1", inherited=("spiffe://example.org/first",))
    assert "/first" not in paths(found)
    assert "children: true" in reason(found, "first")


@pytest.mark.parametrize(
    ("strength", "given"), [("weak-peer", False), ("own-uid", False), ("container", True), ("tpm", True)]
)
def test_strength_is_compared_by_rank(strength: str, *, given: bool) -> None:
    """`tpm` is worth more than `container` although it is spelled later, `weak-peer` less."""
    assert ("/n1/third" in paths(ask("n1", "unix:uid:7", strength=strength))) is given
