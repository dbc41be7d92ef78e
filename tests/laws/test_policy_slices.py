"""Law: leaving out the policies that can't apply never changes an answer (traps 14).

Sets are made of every shape a policy's scope can have, with conditions that hold, don't hold and fail, templates and
links to them included. Cedar is asked with the slice and with the whole set: decision, deciding policies and errors
must be the same.
"""

from __future__ import annotations

from typing import Any

import cedarpy
from cedarpy import pst
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model.act import Act, Action
from broker.model.scope import Sensitivity, patterns
from broker.policy import source
from broker.policy.decide import decide
from broker.policy.request import build
from broker.policy.slices import Policy, PolicySet, Uid
from ca.spiffe.id import SpiffeId
from fakes.nouns import NOW, caller, facts, role, scope, task

PATHS = ["spiffe://example.org/a", "spiffe://example.org/a/b", "spiffe://example.org/c"]
ROLES = ["x/r", "x/s", "y/r"]

PRINCIPALS = st.sampled_from(
    [
        "principal",
        "principal is Agent",
        'principal in TrustDomain::"example.org"',
        *(f'principal in AgentPath::"{path}"' for path in PATHS),
        *(f'principal is Agent in AgentPath::"{path}"' for path in PATHS),
        *(f'principal == Agent::"{path}"' for path in PATHS),
    ]
)
ACTIONS = st.sampled_from(
    [
        "action",
        'action == Action::"obtain"',
        'action == Action::"use"',
        'action in Action::"credential"',
        'action in Action::"grant"',
        'action in [Action::"open", Action::"use"]',
        'action in [Action::"credential", Action::"use"]',
    ]
)
RESOURCES = st.sampled_from(
    [
        "resource",
        "resource is Role",
        "resource is Tool",
        "resource is TrustDomain",
        'resource in TrustDomain::"example.org"',
        'resource == TrustDomain::"example.org"',
        'resource == Tool::"sql"',
        'resource in Tool::"sql"',
        'resource is Role in Target::"x"',
        *(f'resource in Target::"{name}"' for name in "xy"),
        *(f'resource == Role::"{name}"' for name in ROLES),
        *(f'resource in Role::"{name}"' for name in ROLES),
    ]
)
CONDITIONS = st.sampled_from(
    [
        "",
        "when { context.attested.strength >= 3 }",
        "when { context.broker.sensitivity <= 1 }",
        'unless { principal in AgentPath::"spiffe://example.org/a/b" }',
        "when { context.attested.strength + 9223372036854775805 > 0 }",
    ]
)
POLICIES = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), PRINCIPALS, ACTIONS, RESOURCES, CONDITIONS), max_size=14
)
ACTS = st.one_of(
    st.builds(
        lambda action, name: (Act(action=action, resource=name, sensitivity=Sensitivity.INTERNAL), role(name)),
        st.sampled_from([Action.OBTAIN, Action.RENEW]),
        st.sampled_from(ROLES),
    ),
    st.sampled_from(["sql", "mail"]).map(lambda name: (Act(action=Action.USE, resource=name), None)),
    st.just((Act(action=Action.OPEN, resource="spiffe://example.org/a"), None)),
)
CALLERS = st.sampled_from([*PATHS, "spiffe://example.com/a"])
STRENGTHS = st.sampled_from(["none", "shared-uid", "own-uid", "tpm"])


def _policy_set(made: list[tuple[str, ...]]) -> PolicySet:
    """Compiled without the checks of `source`, which would refuse policies that can never apply."""
    text = "\n".join(f"{effect} ({who}, {what}, {on}) {when};" for effect, who, what, on, when in made)
    return _compiled(cedarpy.policies_to_pst(text))


def _compiled(parsed: pst.PolicySet) -> PolicySet:
    trees = {**parsed.static_policies, **parsed.templates}
    policies = [Policy(id=name, reason=name, place="-", tree=tree) for name, tree in trees.items()]
    return PolicySet(policies, source.schema(), "-")


def _answer(policies: PolicySet, compiled: cedarpy.PolicySet, request: Any) -> tuple[Any, ...]:
    entities = policies.entities(request.place.entities)
    result = cedarpy.is_authorized(request.to_cedar(), compiled, entities, policies.schema)
    return result.decision, sorted(result.diagnostics.reasons), sorted(result.diagnostics.errors)


@settings(max_examples=300)
@given(POLICIES, ACTS, CALLERS, STRENGTHS)
def test_a_slice_answers_as_the_whole_set(
    made: list[tuple[str, ...]], asked: tuple[Act, Any], who: str, strength: str
) -> None:
    """Whatever the set and whatever the request."""
    act, known_role = asked
    policies = _policy_set(made)
    known = facts(role=known_role, requested=scope("*"), strength=strength)
    chain = [] if act.action is Action.OPEN else [task(scope=scope("*", tools=patterns(["*"])))]
    request = build(caller(SpiffeId.parse(who)), chain, act, known, Sensitivity.INTERNAL)
    sliced = policies.sliced(request.action, request.place.resource, request.place.above)
    assert _answer(policies, sliced, request) == _answer(policies, policies.whole, request)
    assert len(sliced) <= len(policies.whole)


@settings(max_examples=100)
@given(POLICIES, ACTS, CALLERS, STRENGTHS)
def test_a_decision_is_never_milder_than_the_whole_set(
    made: list[tuple[str, ...]], asked: tuple[Act, Any], who: str, strength: str
) -> None:
    """`decide` permits only what Cedar, asked about everything, allows without one error."""
    act, known_role = asked
    policies = _policy_set(made)
    known = facts(role=known_role, requested=scope("*"), strength=strength)
    chain = [] if act.action is Action.OPEN else [task(scope=scope("*", tools=patterns(["*"])))]
    decision = decide(policies, caller(SpiffeId.parse(who)), chain, act, known, NOW)
    level = Sensitivity.RESTRICTED if act.action in {Action.OPEN, Action.USE} else Sensitivity.INTERNAL
    request = build(caller(SpiffeId.parse(who)), chain, act, known, level)
    whole = _answer(policies, policies.whole, request)
    assert decision.permits is (whole[0] is cedarpy.Decision.Allow and not whole[2])


def test_what_is_left_out_can_not_apply() -> None:
    """The slice of one role of a thousand policies is small; the policies without a scope are always in it."""
    made = [
        ("permit", "principal", 'action == Action::"obtain"', f'resource == Role::"x/{n}"', "") for n in range(1000)
    ]
    made += [
        ("forbid", "principal", "action", "resource", ""),
        ("forbid", "principal", "action", "resource is Role", ""),
    ]
    policies = _policy_set([*made, ("forbid", "principal", 'action in Action::"grant"', 'resource in Target::"x"', "")])
    names = policies.candidates("obtain", Uid("Role", "x/7"), [Uid("Target", "x")])
    assert names == {"policy7", "policy1000", "policy1001", "policy1002"}
    assert policies.candidates("use", Uid("Tool", "sql")) == {"policy1000"}


def test_templates_stay_in_every_slice_they_could_apply_to() -> None:
    """What has a slot may be filled with anything."""
    text = (
        "forbid (principal == ?principal, action, resource);"
        'forbid (principal, action == Action::"obtain", resource in ?resource);'
        'forbid (principal == ?principal, action == Action::"open", resource);'
    )
    policies = _compiled(cedarpy.policies_to_pst(text))
    assert policies.candidates("obtain", Uid("Role", "x/r"), [Uid("Target", "x")]) == {"policy0", "policy1"}
    linked = policies.sliced("obtain", Uid("Role", "x/r"), [Uid("Target", "x")]).with_linked(
        "policy1", "link", {"?resource": {"type": "Target", "id": "x"}}
    )
    request = build(
        caller(), [task()], Act(action=Action.OBTAIN, resource="x/r"), facts(role=role("x/r")), Sensitivity.PUBLIC
    )
    assert _answer(policies, linked, request)[1] == ["link"]
