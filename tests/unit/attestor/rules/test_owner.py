"""A team names its own identities, for its own workloads, and nobody else's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from attestor.errors import BadRules
from attestor.instance import Strength
from attestor.rules.evaluate import Evaluation, Facts
from attestor.rules.model import Condition, Rule
from attestor.rules.owner import Owner
from attestor.rules.owner import Path as OwnerPath
from attestor.rules.read import Terms, read_part
from attestor.selector import Selector, parse_all
from attestor.server.rule_source import RuleSource
from ca.errors import Malformed
from ca.spiffe.id import TrustDomain

TERMS = Terms(
    trust_domain=TrustDomain.parse("example.org"), longest_x509=timedelta(hours=1), longest_jwt=timedelta(hours=1)
)
FINANCE = Owner(
    name="finance",
    paths=(OwnerPath.parse("/finance"),),
    when=Condition.all_of([Selector("k8s", "ns:finance")]),
    dns_names=("finance.svc",),
    federates_with=("partner.example",),
)


def text(**lines: str) -> str:
    """A file with one rule."""
    given = {"name": "a", "nodes": '["node:*"]', "when": "[k8s:sa:x]", "spiffe_id": "/finance/a", **lines}
    return "rules:\n  - " + "\n    ".join(f"{key}: {value}" for key, value in given.items()) + "\n"


def read(**lines: str) -> Rule:
    """The one rule of finance."""
    (rule,) = read_part([("f.yaml", text(**lines))], TERMS, FINANCE)
    return rule


def test_the_owners_conditions_are_added() -> None:
    """What the team's file leaves out is demanded all the same."""
    found = read()
    assert found.name == "finance/a"
    assert found.when.texts == ["k8s:ns:finance", "k8s:sa:x"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"spiffe_id": "/payroll/a"}, "may only name identities below `/finance/…`"),
        ({"spiffe_id": "/financeer/a"}, "may only name"),
        ({"spiffe_id": "/finance"}, "may only name"),
        ({"spiffe_id": '"/{k8s.ns}/a"'}, "may only name"),
        ({"spiffe_id": "spiffe://other.example/finance/a"}, "another trust domain"),
        ({"dns_names": "[payroll.svc]"}, "is not below a DNS name"),
        ({"dns_names": "[xfinance.svc]"}, "is not below a DNS name"),
        ({"federates_with": "[elsewhere.example]"}, "may not federate with"),
        ({"federates_with": '["*"]'}, "may not federate with"),
        ({"federates_with": "[example.org]"}, "our own trust domain"),
    ],
)
def test_what_is_not_the_owners_is_refused(lines: dict[str, str], words: str) -> None:
    """Each with its file, line and key."""
    with pytest.raises(BadRules) as caught:
        read(**lines)
    assert all(fault.startswith("f.yaml:") for fault in caught.value.errors)
    assert words in caught.value.errors[0]


def test_what_is_the_owners_is_taken() -> None:
    """Names below its DNS names, domains it may federate with, placeholders behind its path."""
    found = read(
        dns_names="[finance.svc, a.finance.svc]", federates_with="[partner.example]", spiffe_id='"/finance/{k8s.sa}"'
    )
    assert found.federates_with == ("partner.example",)


def test_a_placeholder_can_not_lead_out_of_the_owners_path() -> None:
    """Whatever a label or account is called."""
    evaluation = Evaluation(RuleSource([], TERMS).current)
    rule = read(spiffe_id='"/finance/{k8s.sa}"')
    assert evaluation.rules.rules == ()
    for value in ("..", "../payroll", "x/y"):
        facts = parse_all(["k8s:ns:finance", "k8s:sa:x"]) - parse_all(["k8s:sa:x"]) | {Selector("k8s", f"sa:{value}")}
        with pytest.raises(Malformed):
            rule.template.fill(facts)


@pytest.mark.parametrize("path", ["finance", "/", "/a//b", "/a/..", "/task", "/sojourn/x", "/a b", ""])
def test_an_owner_has_a_path_of_its_own(path: str) -> None:
    """Whole segments, none of them reserved."""
    with pytest.raises(Malformed):
        OwnerPath.parse(path)


def source(folder: Path) -> RuleSource:
    """The operators' file and that of finance."""
    (folder / "rules.yaml").write_text(text(name="platform", spiffe_id="/web", when="[unix:uid:7]"))
    return RuleSource([folder / "rules.yaml"], TERMS, (), [(FINANCE, [folder / "finance.yaml"])])


def names(rules: RuleSource) -> list[str]:
    """What is in force."""
    return [rule.name for rule in rules.current.rules]


def test_one_teams_mistake_is_that_teams_alone(tmp_path: Path) -> None:
    """Its former rules stay in force; others change theirs meanwhile."""
    (tmp_path / "finance.yaml").write_text(text())
    rules = source(tmp_path)
    assert names(rules) == ["platform", "finance/a"]
    (tmp_path / "finance.yaml").write_text(text(spiffe_id="/web"))
    (tmp_path / "rules.yaml").write_text(text(name="other", spiffe_id="/web", when="[unix:uid:7]"))
    assert not rules.reload()
    assert names(rules) == ["other", "finance/a"]
    assert "may only name" in rules.trouble[0]
    (tmp_path / "finance.yaml").write_text(text(name="b"))
    assert rules.reload()
    assert (names(rules), rules.trouble) == (["other", "finance/b"], ())


def test_a_server_starts_without_a_team_whose_file_is_bad(tmp_path: Path) -> None:
    """And says so; with a bad file of the operators' it does not start."""
    (tmp_path / "finance.yaml").write_text("rules: [")
    rules = source(tmp_path)
    assert names(rules) == ["platform"]
    assert rules.trouble


def test_an_owners_process_gets_nothing_outside_its_namespace(tmp_path: Path) -> None:
    """The account `x` of another namespace is not that of finance."""
    (tmp_path / "finance.yaml").write_text(text())
    evaluation = source(tmp_path).evaluation
    for namespace, given in (("finance", ["/finance/a"]), ("payroll", [])):
        facts = Facts(
            node=parse_all(["node:name:n"]),
            workload=parse_all(["k8s:sa:x", f"k8s:ns:{namespace}"]),
            strength=Strength.POD,
        )
        assert [one.id.path for one in evaluation.entitled(facts)] == given
