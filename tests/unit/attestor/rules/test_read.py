"""Rule files: refused whole, every fault with its line."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from attestor.errors import BadRules
from attestor.instance import Binding, Strength
from attestor.rules.model import RuleSet
from attestor.rules.read import Terms, read_rules
from ca.spiffe.id import TrustDomain

TERMS = Terms(
    trust_domain=TrustDomain.parse("example.org"), longest_x509=timedelta(hours=24), longest_jwt=timedelta(hours=1)
)
GOOD = """\
rules:
  - name: web
    nodes: [node:name:web-1]
    when:
      - unix:uid:1000
      - any: [unix:gid:100, unix:gid:101]
    spiffe_id: /agent/{unix.user}
    hint: main
    x509_ttl: 30m
    jwt_ttl: 2m
    bind: process
    children: true
    dns_names: [web.example.org]
    audiences: [orders]
    strength: own-uid
"""


def read(text: str, terms: Terms = TERMS) -> RuleSet:
    """Read one file."""
    return read_rules([("r.yaml", text)], terms)


def faults(text: str, terms: Terms = TERMS) -> tuple[str, ...]:
    """Why it is refused."""
    with pytest.raises(BadRules) as caught:
        read(text, terms)
    return caught.value.errors


def rule(**lines: str) -> str:
    """An entry, some of its lines replaced, those given as empty left out."""
    given = {
        "name": "a",
        "nodes": "[node:name:n]",
        "when": "[unix:uid:7]",
        "spiffe_id": "/a",
        **{key: value for key, value in lines.items() if value},
    }
    kept = [f"{key}: {value}" for key, value in given.items() if lines.get(key) != ""]
    return "  - " + "\n    ".join(kept) + "\n"


def test_everything_a_rule_can_say_is_read() -> None:
    """Each key has its place in the value."""
    (found,) = read(GOOD).rules
    assert (found.name, found.source, found.hint, found.bind) == ("web", "r.yaml:2", "main", Binding.PROCESS)
    assert found.when.texts == ["unix:uid:1000", "one of unix:gid:100, unix:gid:101"]
    assert found.nodes is not None
    assert found.nodes.texts == ["node:name:web-1"]
    assert (found.x509_ttl, found.jwt_ttl) == (timedelta(minutes=30), timedelta(minutes=2))
    assert (found.children, found.dns_names, found.audiences) == (True, ("web.example.org",), ("orders",))
    assert found.strength is Strength.OWN_UID
    assert str(found.template) == "spiffe://example.org/agent/{unix.user}"


def test_the_defaults_give_the_least() -> None:
    """Nothing is bound, inherited or published unless a rule says so."""
    (found,) = read("rules:\n" + rule()).rules
    assert (found.bind, found.children, found.dns_names, found.hint) == (Binding.NONE, False, (), "")
    assert found.x509_ttl is None


@pytest.mark.parametrize(
    ("change", "line", "why"),
    [
        ({"nodes": ""}, 2, "nodes: is required"),
        ({"nodes": "[]"}, 3, "at least one"),
        ({"nodes": "[node:*, node:name:x]"}, 3, "must stand alone"),
        ({"when": "[]"}, 4, "at least one"),
        ({"when": "[node:name:n]"}, 4, "must stand under `nodes`"),
        ({"when": "[unix]"}, 4, "is not a selector"),
        ({"when": "[{any: []}]"}, 4, "expected a selector"),
        ({"when": "[{all: [unix:uid:1]}]"}, 4, "expected a selector"),
        ({"spiffe_id": "/sojourn/broker"}, 5, "reserved"),
        ({"spiffe_id": "/task/1"}, 5, "reserved"),
        ({"spiffe_id": "spiffe://other.org/a"}, 5, "another trust domain"),
        ({"bind": "forever"}, 6, "must be one of"),
        ({"children": '"true"'}, 6, "true or false"),
        ({"x509_ttl": "2d"}, 6, "expected 5 seconds to"),
        ({"x509_ttl": "1s"}, 6, "expected 5 seconds to"),
        ({"x509_ttl": "3600"}, 6, "with its unit"),
        ({"dns_names": '["*.example.org"]'}, 6, "without a wildcard"),
        ({"strength": "strong"}, 6, "must be one of"),
        ({"selectors": "[unix:uid:7]"}, 6, "unknown key"),
        ({"name": '"A b"'}, 2, "name must be"),
    ],
)
def test_a_fault_is_told_with_file_line_and_key(change: dict[str, str], line: int, why: str) -> None:
    """One sentence that says what was expected."""
    (found,) = faults("rules:\n" + rule(**change))
    assert found.startswith(f"r.yaml:{line}: rules[0]")
    assert why in found


def test_every_fault_of_every_file_is_told() -> None:
    """One bad rule does not hide another, nor one file another, nor a badly formed rule a well formed one."""
    one = "rules:\n" + rule(spiffe_id="/task/1") + rule(name="b", bind="forever") + rule(name="c", when="[node:x:y]")
    with pytest.raises(BadRules) as caught:
        read_rules([("one.yaml", one), ("two.yaml", "rules:\n" + rule(name="d", colour="red"))], TERMS)
    assert len(caught.value.errors) == 4
    assert [error.split(":")[0] for error in caught.value.errors].count("two.yaml") == 1


def test_a_name_is_given_once_over_all_files() -> None:
    """Two rules of one name would make `explain` lie."""
    with pytest.raises(BadRules, match=r"already, in one\.yaml:2"):
        read_rules([("one.yaml", "rules:\n" + rule()), ("two.yaml", "rules:\n" + rule())], TERMS)


def test_only_up_may_leave_the_nodes_out() -> None:
    """With its flag a rule without nodes holds on any node."""
    (found,) = read("rules:\n" + rule(nodes=""), replace(TERMS, without_nodes=True)).rules
    assert found.nodes is None


def test_any_node_is_said_in_so_many_words() -> None:
    """`[node:*]` is the explicit form."""
    (found,) = read("rules:\n" + rule(nodes='["node:*"]')).rules
    assert found.nodes is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (rule(when="[unix:uid:7, unix:path:/usr/bin/python3.11]"), "interpreter"),
        (rule(when="[unix:uid:7, unix:path:/bin/bash]"), "interpreter"),
        (rule(when="[unix:path:/opt/agent]"), "only narrows"),
        (rule(when="[ancestor:id:spiffe://example.org/agent, unix:path:/opt/agent]"), "only narrows"),
        (rule(when="[k8s:pod-label:app:cart]"), "whoever may create pods"),
        (rule(when="[k8s:ns:shop, k8s:container-image:cart:1]"), "name the digest"),
        (rule(bind="unit"), "also ask for a `systemd` selector"),
        (rule(bind="pod"), "also ask for a `k8s` selector"),
        (rule() + rule(name="b", spiffe_id="/b"), "processes of one uid"),
        (rule() + rule(name="b", spiffe_id="/b", nodes='["node:*"]'), "processes of one uid"),
    ],
)
def test_what_is_probably_not_meant_is_warned_of_and_strictly_refused(text: str, why: str) -> None:
    """Interpreter paths, paths alone, labels of any namespace, tags, two identities under one uid (traps 9)."""
    (warning,) = read("rules:\n" + text).warnings
    assert why in warning
    assert faults("rules:\n" + text, replace(TERMS, strict=True)) == (warning,)


@pytest.mark.parametrize(
    "text",
    [
        rule(when="[k8s:ns:shop, 'k8s:container-image:cart@sha256:0f']", bind="pod"),
        rule(when="[systemd:unit:agent.service, unix:uid:7]", bind="unit"),
        rule(when="[ancestor:id:spiffe://example.org/agent, unix:uid:7]"),
    ],
)
def test_what_is_meant_is_not_warned_of(text: str) -> None:
    """The same with what was missing."""
    assert read("rules:\n" + text).warnings == ()


def test_one_uid_on_two_machines_is_no_suspicion() -> None:
    """Rules for differently named nodes never meet."""
    text = rule() + rule(name="b", spiffe_id="/b", nodes="[node:name:other]")
    assert read("rules:\n" + text).warnings == ()


def test_the_version_follows_what_rules_mean_not_how_they_are_written() -> None:
    """A comment changes nothing; a lifetime does."""
    first = read(GOOD).version
    assert read("# hello\n" + GOOD).version == first
    assert read(GOOD.replace("30m", "31m")).version != first
