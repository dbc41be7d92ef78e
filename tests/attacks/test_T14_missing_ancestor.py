"""T14: an ancestor that is missing from the request silently switches a forbid off.

Attack: an agent of a forbidden path gets itself judged by a request whose entities lack one rung of the ladder from it
to that path. Cedar sees no ancestor, passes over the forbid, reports no error, and allows.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from broker.model.scope import Sensitivity
from broker.policy import source
from broker.policy.decide import decide
from broker.policy.request import Entity, Incomplete, Request, build, closed
from broker.policy.request import whole as entities_of
from broker.policy.slices import PolicySet, Uid
from ca.spiffe.id import SpiffeId
from fakes.nouns import NOW, caller, facts, obtain, role, task

SUSPENDED = SpiffeId.parse("spiffe://example.org/agents/suspended/one/deep")
POLICIES = source.parse(
    {
        "a": '@id("all") permit (principal, action, resource);\n'
        '@id("suspended") forbid (principal in AgentPath::"spiffe://example.org/agents/suspended", action, resource);'
    }
)
GROUPS = source.parse(
    {
        "a": '@id("all") permit (principal, action, resource);\n'
        '@id("none") forbid (principal, action in Action::"grant", resource);'
    }
)


def _request(identity: SpiffeId = SUSPENDED) -> Request:
    return build(caller(identity), [task()], obtain(), facts(), Sensitivity.INTERNAL)


def _ask(policies: PolicySet, request: Request, entities: cedarpy.Entities) -> tuple[cedarpy.Decision, list[str]]:
    result = cedarpy.is_authorized(request.to_cedar(), policies.whole, entities, policies.schema)
    return result.decision, result.diagnostics.errors


def _without(request: Request, dropped: str) -> list[dict[str, Any]]:
    return [one for one in json.loads(request.place.entities) if one["uid"]["id"] != dropped]


def test_cedar_alone_allows_when_a_rung_is_missing() -> None:
    """The fact the defence stands on: Allow, and not one error."""
    request = _request()
    whole = POLICIES.entities(request.place.entities)
    assert _ask(POLICIES, request, whole) == (cedarpy.Decision.Deny, [])
    cut = cedarpy.Entities.from_json_str(
        json.dumps(_without(request, "spiffe://example.org/agents/suspended/one")), POLICIES.schema
    )
    assert _ask(POLICIES, request, cut) == (cedarpy.Decision.Allow, [])


def test_cedar_alone_allows_without_the_hierarchy_of_actions() -> None:
    """Entities read without the schema lack it; ours are never read without."""
    request = _request()
    bare = cedarpy.Entities.from_json_str(request.place.entities)
    assert _ask(GROUPS, request, bare) == (cedarpy.Decision.Allow, [])
    assert _ask(GROUPS, request, GROUPS.entities(request.place.entities)) == (cedarpy.Decision.Deny, [])


def test_every_rung_of_every_ladder_is_checked() -> None:
    """Whichever single thing is left out, the closure finds it: nothing named is ever unknown."""
    request = _request()
    read = [_entity(one) for one in json.loads(request.place.entities)]
    named = [request.place.principal, request.place.resource]
    assert closed(read, named) is None
    for left_out in read:
        assert closed([one for one in read if one is not left_out], named) is not None or _is_unnamed(left_out, read)


def test_a_request_with_something_missing_is_never_built() -> None:
    """It is not for whoever asks to look first: nobody gets a request that is not whole."""
    parent = task()
    child = replace(task(parent), owner=SUSPENDED)
    whole = build(caller(), [parent, child], obtain(), facts(), Sensitivity.INTERNAL)
    read = [_entity(one) for one in json.loads(whole.place.entities)]
    named = [whole.place.principal, whole.place.resource, Uid("Task", child.id)]
    assert json.loads(entities_of(read, named)) == json.loads(whole.place.entities)
    for left_out in read:
        if closed([one for one in read if one is not left_out], named) is not None:
            with pytest.raises(Incomplete):
                entities_of([one for one in read if one is not left_out], named)


def test_the_decision_denies_an_agent_of_a_forbidden_path_at_any_depth() -> None:
    """Above the path permitted, in it and below it denied, beside it permitted."""
    for path, permitted in [
        ("/agents", True),
        ("/agents/suspended", False),
        ("/agents/suspended/one", False),
        ("/agents/suspended/one/deep", False),
        ("/agents/suspended-not", True),
        ("/other/agents/suspended", True),
    ]:
        who = caller(SpiffeId.parse(f"spiffe://example.org{path}"))
        decision = decide(POLICIES, who, [task()], obtain(), facts(), NOW)
        assert decision.permits is permitted, path
        assert permitted or decision.policies == ("suspended",)


@pytest.mark.parametrize("broken", ["parent", "root", "role"])
def test_facts_that_are_not_whole_deny(broken: str) -> None:
    """A task whose parent is missing, a chain of two trees, a role nobody told of: incomplete facts."""
    parent = task()
    child = task(parent)
    chain = {"parent": [child], "root": [parent, replace(child, root=child.id)], "role": [parent, child]}[broken]
    known = facts(role=None) if broken == "role" else facts()
    decision = decide(POLICIES, caller(), chain, obtain(), known, NOW)
    assert (decision.permits, decision.policies) == (False, ("facts",))
    assert decision.reason.startswith("incomplete facts: ")


def test_a_role_lies_in_its_target_for_every_policy() -> None:
    """A forbid on a target reaches each of its roles."""
    policies = source.parse(
        {
            "a": '@id("all") permit (principal, action, resource);'
            '@id("closed") forbid (principal, action, resource in Target::"orders-db");'
        }
    )
    assert decide(policies, caller(), [task()], obtain(), facts(), NOW).policies == ("closed",)
    other = role("orders-db-2/readonly")
    assert decide(policies, caller(), [task()], obtain(other.full_name), facts(role=other), NOW).permits


def _entity(one: dict[str, Any]) -> Entity:
    def uid(value: dict[str, str]) -> Uid:
        return Uid(value["type"], value["id"])

    attributes = tuple(
        (name, uid(value["__entity"]) if isinstance(value, dict) else value) for name, value in one["attrs"].items()
    )
    return Entity(uid=uid(one["uid"]), parents=tuple(map(uid, one["parents"])), attributes=attributes)


def _is_unnamed(left_out: Entity, read: list[Entity]) -> bool:
    """The task stands only in the context: `build` names it by itself."""
    return left_out.uid.type == "Task" and len([one for one in read if one.uid.type == "Task"]) == 1
