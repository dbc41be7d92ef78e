"""Looking at few rules gives what looking at all of them gives."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from attestor.instance import Strength
from attestor.rules.evaluate import Evaluation, Facts
from attestor.rules.index import Index
from attestor.rules.model import Condition, Rule, RuleSet
from attestor.rules.template import Template
from attestor.selector import Selector
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")
NODE = st.sampled_from([Selector("node", f"name:{n}") for n in "abc"])
WORKLOAD = st.sampled_from([Selector("unix", f"uid:{n}") for n in range(3)] + [Selector("unix", "user:ann")])


def conditions(selectors: st.SearchStrategy[Selector]) -> st.SearchStrategy[Condition]:
    """One to three groups of one to three selectors."""
    groups = st.lists(selectors, min_size=1, max_size=3).map(tuple)
    return st.lists(groups, min_size=1, max_size=3).map(lambda found: Condition(tuple(found)))


@st.composite
def rules(draw: st.DrawFn) -> RuleSet:
    """A set of up to a dozen rules."""
    count = draw(st.integers(0, 12))
    return RuleSet(
        trust_domain=DOMAIN,
        rules=tuple(
            Rule(
                name=f"r{number}",
                source="x",
                nodes=draw(st.none() | conditions(NODE)),
                when=draw(conditions(WORKLOAD)),
                template=Template.parse(draw(st.sampled_from(["/a", "/b", "/{unix.user}", "/c"])), DOMAIN),
                hint=draw(st.sampled_from(["", "h"])),
                own=draw(st.integers(0, 9)) == 0,
            )
            for number in range(count)
        ),
    )


@given(rules(), st.frozensets(NODE), st.frozensets(WORKLOAD))
def test_entitled_is_what_explain_says(
    found: RuleSet, node: frozenset[Selector], workload: frozenset[Selector]
) -> None:
    """The same identities, by the same rules, in the same order."""
    facts = Facts(node=node, workload=workload, strength=Strength.OWN_UID)
    evaluation = Evaluation(found)
    outcome = evaluation.explain(facts)
    assert evaluation.entitled(facts) == outcome.entitled
    assert len(outcome.entitled) + len(outcome.missed) == len(found.rules)


def test_of_ten_thousand_rules_only_those_of_the_team_are_looked_at() -> None:
    """However common the other conditions are."""
    common = Selector("k8s", "sa:default")
    many = [
        Rule(
            name=f"r{team}-{number}",
            source="x",
            nodes=None,
            when=Condition.all_of([common, Selector("k8s", f"ns:team-{team}")]),
            template=Template.parse(f"/team-{team}/{number}", DOMAIN),
            x509_ttl=timedelta(minutes=5),
        )
        for team in range(1000)
        for number in range(10)
    ]
    asked = frozenset({common, Selector("k8s", "ns:team-7"), Selector("k8s", "pod-name:x")})
    assert Index.of(many).candidates(node=frozenset(), workload=asked) == list(range(70, 80))
