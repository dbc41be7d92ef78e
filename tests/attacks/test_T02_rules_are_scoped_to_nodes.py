"""Traps 2: one bad node agent must not be worth every identity of the trust domain.

The attacker has one admitted node and says about its processes whatever it likes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.errors import BadRules, NotEntitled
from attestor.rules.model import Condition, Rule
from attestor.rules.read import read_rules
from attestor.rules.template import Template
from attestor.selector import Selector, parse_all
from attestor.wire.attestation import Attestation
from attestor.wire.node import JwtItem, Refusal, Signed
from fakes.attestor_parts import DOMAIN, TERMS, Parts, attestation, parts, wants

RULES = """\
rules:
  - name: orders
    nodes: [node:name:good]
    when: [unix:uid:0]
    spiffe_id: /agent/orders
  - name: own
    nodes: ["node:*"]
    when: [unix:uid:0]
    spiffe_id: /on/{node.name}/{unix.user}
"""
BROKER = Rule(
    name="sojourn-broker",
    source="settings",
    nodes=Condition.all_of([Selector("node", "name:good")]),
    when=Condition.all_of([Selector("unix", "self:true")]),
    template=Template.parse("/sojourn/broker", DOMAIN, may_be_reserved=True),
    own=True,
)
CLAIMS = ("unix:uid:0", "unix:self:true", "unix:path:/usr/bin/sojourn", "unix:user:root", "node:name:good")


async def ask(server: Parts, node: str, path: str, of: Attestation) -> Signed | Refusal:
    """Sign one leaf."""
    admitted = await server.node(server.peer_id(node))
    (result,) = await server.workloads.sign(admitted, [wants(path, of)], server.clock.now())
    return result


@pytest.mark.parametrize(
    "path",
    ["/agent/orders", "/sojourn/broker", "/sojourn/node/good", "/sojourn/server", "/task/1", "/on/good/root", "/x"],
)
async def test_a_bad_node_gets_no_identity_of_another(tmp_path: Path, path: str) -> None:
    """Whatever selectors it reports, the server looks at what it verified when it admitted the node."""
    async with parts(tmp_path, RULES, own=[BROKER]) as server:
        await server.join("good")
        await server.join("bad")
        refused = await ask(server, "bad", path, attestation(*CLAIMS))
        assert isinstance(refused, Refusal)
        assert refused.code == "not-entitled"
        node = await server.node(server.peer_id("bad"))
        item = JwtItem(attestation=attestation(*CLAIMS), id=DOMAIN.member(path), audience=("a",))
        with pytest.raises(NotEntitled):
            await server.workloads.sign_jwt(node, item, server.clock.now())


async def test_the_good_node_gets_what_the_bad_one_asked_for(tmp_path: Path) -> None:
    """So the refusals above are about the node and nothing else."""
    async with parts(tmp_path, RULES, own=[BROKER]) as server:
        await server.join("good")
        assert isinstance(await ask(server, "good", "/sojourn/broker", attestation(*CLAIMS)), Signed)
        agent = attestation("unix:uid:0", "unix:user:root")
        for path in ("/agent/orders", "/on/good/root"):
            assert isinstance(await ask(server, "good", path, agent), Signed)


async def test_one_of_our_own_parts_is_nothing_else(tmp_path: Path) -> None:
    """A broker whose uid also matches the rule of an agent does not become that agent."""
    async with parts(tmp_path, RULES, own=[BROKER]) as server:
        node = await server.join("good")
        (told,), _ = await server.workloads.resolve(node, [attestation(*CLAIMS)])
        assert [one.id.path for one in told.identities] == ["/sojourn/broker"]


async def test_a_node_does_not_learn_of_rules_for_others(tmp_path: Path) -> None:
    """Not their names, not their identities."""
    async with parts(tmp_path, RULES, own=[BROKER]) as server:
        node = await server.join("bad")
        (told,), _ = await server.workloads.resolve(node, [attestation("unix:uid:1")], explain=True)
        assert [one.rule for one in told.unmatched] == ["own"]
        assert told.identities == ()


async def test_a_placeholder_can_not_escape_its_segment(tmp_path: Path) -> None:
    """A user called `x/../../task/1` has no identity; nor does one who would fill a reserved path."""
    rules = 'rules: [{name: a, nodes: ["node:*"], when: ["unix:uid:0"], spiffe_id: "/{unix.user}/1"}]'
    async with parts(tmp_path, rules) as server:
        node = await server.join("n")
        for name in ("x/../../task", "x/y", "task/7", "task", "sojourn", "..", ""):
            selectors = ["unix:uid:0", f"unix:user:{name}"] if name else ["unix:uid:0"]
            (told,), _ = await server.workloads.resolve(node, [attestation(*selectors)])
            assert told.identities == ()
        (told,), _ = await server.workloads.resolve(node, [attestation("unix:uid:0", "unix:user:ann")])
        assert [str(one.id) for one in told.identities] == ["spiffe://example.org/ann/1"]


@pytest.mark.parametrize(
    "change", ["", "spiffe_id: /sojourn/broker, nodes: [a:b], ", "spiffe_id: /task/7, nodes: [a:b], "]
)
def test_a_rule_file_can_not_say_it(change: str) -> None:
    """A rule without `nodes`, or with a reserved path, is refused when loaded."""
    text = f"rules: [{{name: a, when: [unix:uid:0], {change or 'spiffe_id: /a, '}bind: none}}]"
    with pytest.raises(BadRules):
        read_rules([("r.yaml", text)], TERMS)


async def test_a_rule_that_was_taken_away_signs_nothing_any_more(tmp_path: Path) -> None:
    """Sign evaluates again: an entitlement resolved before is no ticket."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("good")
        of = attestation(*CLAIMS)
        (told,), _ = await server.workloads.resolve(node, [of])
        assert str(told.identities[0].id) == "spiffe://example.org/agent/orders"
        (tmp_path / "rules.yaml").write_text("rules: []")
        assert server.rules.reload()
        assert isinstance(await ask(server, "good", "/agent/orders", of), Refusal)


async def test_an_instance_of_another_node_is_nobody_s_ancestor(tmp_path: Path) -> None:
    """A node that names it neither gains nor loses by it, and finds out nothing of what it was given."""
    async with parts(tmp_path, RULES) as server:
        good, bad = await server.join("good"), await server.join("bad")
        of = attestation("unix:uid:0", "unix:user:root")
        assert isinstance(await ask(server, "good", "/agent/orders", of), Signed)
        child = attestation("unix:uid:0", "unix:user:root", ancestors=(of.instance,))
        (here,), _ = await server.workloads.resolve(good, [child], explain=True)
        assert [one.id.path for one in here.identities] == ["/on/good/root"]
        assert "descends from one" in here.unmatched[0].reason
        assert isinstance(await ask(server, "good", "/on/good/root", of), Signed)
        rules = (tmp_path / "rules.yaml").read_text().replace("node:name:good", "node:name:bad")
        (tmp_path / "rules.yaml").write_text(rules)
        assert server.rules.reload()
        (there,), _ = await server.workloads.resolve(bad, [child])
        assert [one.id.path for one in there.identities] == ["/agent/orders", "/on/bad/root"]


async def test_an_ancestor_counts_for_what_it_was_given_here(tmp_path: Path) -> None:
    """A node agent names whom a process descends from; what it never held on that node, nobody inherits."""
    rules = """
rules:
  - {name: agent, nodes: ["node:name:good"], when: ["unix:uid:7"], spiffe_id: /agent}
  - {name: other, nodes: ["node:*"], when: ["unix:uid:8"], spiffe_id: /other}
  - {name: sub, nodes: ["node:*"], when: ["ancestor:id:spiffe://example.org/agent", "unix:uid:9"], spiffe_id: /sub}
"""
    lie = ("ancestor:id:spiffe://example.org/agent", "parent:id:spiffe://example.org/agent", "unix:uid:9")
    async with parts(tmp_path, rules) as server:
        good, bad = await server.join("good"), await server.join("bad")
        agent, other = attestation("unix:uid:7"), attestation("unix:uid:8")
        assert isinstance(await ask(server, "good", "/agent", agent), Signed)
        assert isinstance(await ask(server, "bad", "/other", other), Signed)
        for node, ancestors, paths in (
            (good, (agent.instance,), ["/sub"]),
            (good, (), []),
            (bad, (), []),
            (bad, (other.instance,), []),
            (bad, (agent.instance,), []),
        ):
            (told,), _ = await server.workloads.resolve(node, [attestation(*lie, ancestors=ancestors)])
            assert [one.id.path for one in told.identities] == paths


def test_selectors_of_a_node_are_only_the_verified_ones() -> None:
    """`node:*` in a report is just a text."""
    assert Selector("node", "*") in parse_all(["node:*"])
    assert not BROKER.holds_on(parse_all(["node:*", "node:name:bad"]))
