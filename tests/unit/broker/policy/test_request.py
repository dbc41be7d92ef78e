"""What Cedar is asked, and that nothing it names is missing."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from attestor.instance import Strength
from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.scope import Sensitivity, patterns
from broker.policy.request import Entity, Incomplete, Request, build, closed, strength_rank, whole
from broker.policy.slices import Uid
from ca.spiffe.id import SpiffeId
from fakes.nouns import BILLING, NOW, caller, facts, obtain, role, scope, task


def _entities(request: Request) -> dict[str, dict[str, Any]]:
    return {f"{one['uid']['type']}::{one['uid']['id']}": one for one in json.loads(request.place.entities)}


def _parents(one: dict[str, Any]) -> list[str]:
    return [f"{parent['type']}::{parent['id']}" for parent in one["parents"]]


def test_an_agent_lies_in_every_path_above_it() -> None:
    """By whole segments, its own id first, the trust domain last."""
    who = caller(SpiffeId.parse("spiffe://example.org/agents/billing/invoices"))
    found = _entities(build(who, [task()], obtain(), facts(), Sensitivity.INTERNAL))
    ladder = [
        "Agent::spiffe://example.org/agents/billing/invoices",
        "AgentPath::spiffe://example.org/agents/billing/invoices",
        "AgentPath::spiffe://example.org/agents/billing",
        "AgentPath::spiffe://example.org/agents",
        "TrustDomain::example.org",
    ]
    for lower, upper in pairwise(ladder):
        assert _parents(found[lower]) == [upper]
    assert _parents(found[ladder[-1]]) == []


def test_a_task_lies_in_those_above_it() -> None:
    """With its owner, its depth and whether a process bounds it."""
    root = task(owner=SpiffeId.parse("spiffe://example.org/agents/chief"), instance=None)
    child = task(root)
    found = _entities(build(caller(), [root, child], obtain(), facts(), Sensitivity.INTERNAL))
    told = found[f"Task::{child.id}"]
    assert _parents(told) == [f"Task::{root.id}"]
    assert told["attrs"] == {
        "owner": {"__entity": {"type": "Agent", "id": str(BILLING)}},
        "depth": 1,
        "bound": True,
    }
    assert found[f"Task::{root.id}"]["attrs"]["bound"] is False
    assert "Agent::spiffe://example.org/agents/chief" in found


def test_claims_stand_under_claimed_and_nowhere_else() -> None:
    """What an agent says of itself is told apart from what is known."""
    act = obtain(confidence=70, tool="said-tool", destination="said-place", claimed_sensitivity=Sensitivity.RESTRICTED)
    request = build(caller(), [task(purpose="said-purpose")], act, facts(), Sensitivity.INTERNAL)
    context = json.loads(request.context)
    assert context["claimed"] == {
        "confidence": 70,
        "purpose": "said-purpose",
        "tool": "said-tool",
        "destination": "said-place",
    }
    assert context["attested"] == {"strength": 3}
    assert set(context["broker"]) == {"sensitivity", "task"}
    rest = json.dumps([context["attested"], context["broker"], request.place.entities])
    assert "said-" not in rest


def test_what_a_task_asks_for_when_it_is_opened() -> None:
    """Patterns, ceiling and length; the resource is our own trust domain, whatever the act says."""
    asked = scope("a/*", "b/c", tools=patterns(["sql"]))
    known = facts(role=None, requested=asked, lasts=timedelta(minutes=10), purpose="p1")
    act = Act(action=Action.OPEN, resource="spiffe://example.com/anything")
    request = build(caller(), [], act, known, Sensitivity.RESTRICTED)
    assert str(request.place.resource) == 'TrustDomain::"example.org"'
    assert json.loads(request.context)["broker"] == {
        "sensitivity": 3,
        "roles": ["a/*", "b/c"],
        "tools": ["sql"],
        "destinations": [],
        "lasts": 600,
    }


@pytest.mark.parametrize("strength", Strength)
def test_the_ranks_of_the_schema_are_those_of_the_attestor(strength: Strength) -> None:
    """0 is for what nobody vouches for; the rest in the attestor's order."""
    assert strength_rank(str(strength)) == strength.rank + 1
    assert strength_rank("none") == strength_rank("anything else") == 0


@pytest.mark.parametrize("chain", [[], [task(task())], [task(), task()]])
def test_a_chain_that_is_not_whole_is_incomplete(chain: list[Any]) -> None:
    """None at all, one whose parent is missing, two that don't belong together."""
    with pytest.raises(Incomplete):
        build(caller(), chain, obtain(), facts(), Sensitivity.INTERNAL)


def test_the_first_missing_thing_is_found() -> None:
    """Named by the request, as a parent or in an attribute."""
    agent, path, domain = Uid("Agent", "a"), Uid("AgentPath", "p"), Uid("TrustDomain", "d")
    ladder = [Entity(uid=agent, parents=(path,)), Entity(uid=path, parents=(domain,)), Entity(uid=domain)]
    assert closed(ladder, [agent]) is None
    assert closed(ladder[:2], [agent]) == domain
    assert closed([ladder[0], ladder[2]], [agent]) == path
    assert closed(ladder, [agent, Uid("Role", "r")]) == Uid("Role", "r")
    owner = Entity(uid=Uid("Task", "t"), attributes=(("owner", Uid("Agent", "b")), ("depth", 0)))
    assert closed([*ladder, owner], [agent]) == Uid("Agent", "b")
    assert len(json.loads(whole([*ladder, *ladder], [agent]))) == 3
    with pytest.raises(Incomplete, match='`TrustDomain::"d"` is named and not known'):
        whole(ladder[:2], [agent])


def test_a_caller_without_a_path_lies_in_its_domain() -> None:
    """Nobody should hold such an identity; if somebody does, it is in no path."""
    who = Workload(id=SpiffeId.parse("spiffe://example.org"), instance=None, not_after=NOW)
    found = _entities(build(who, [task()], obtain(), facts(role=role()), Sensitivity.INTERNAL))
    assert _parents(found["Agent::spiffe://example.org"]) == ["TrustDomain::example.org"]
