"""Law: whatever change a denial names, making it turns the answer into a permit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model.act import Act, Action
from broker.model.scope import Sensitivity, patterns
from broker.model.task import Task
from broker.policy import source
from broker.policy.decide import decide, judge
from broker.policy.nearest import NONE, Change, question, search
from broker.policy.slices import PolicySet
from fakes.nouns import BILLING, NOW, caller, facts, role, scope, task

ROLES = [
    role("x/r"),
    role("x/s", sensitivity=Sensitivity.CONFIDENTIAL),
    role("y/r", sensitivity=Sensitivity.RESTRICTED),
]
PERMITS = st.sampled_from(
    [
        "context.attested.strength >= 4",
        "context.broker.sensitivity <= 1",
        "context.broker.sensitivity == 2",
        "context.attested.strength + context.broker.sensitivity > 4",
        "true",
    ]
)
FORBIDS = st.sampled_from(
    [
        "context.claimed.confidence < 50",
        "context.claimed.confidence > 80",
        'context.claimed has destination && context.claimed.destination != "house/mail"',
        'context.claimed has tool && context.claimed.tool == "sql"',
        "context.attested.strength == 1",
        "context.broker.sensitivity > 2",
        "context.claimed.confidence + 9223372036854775757 > 0 && false",
    ]
)
SCOPED = st.sampled_from(["resource", 'resource in Target::"x"', 'resource == Role::"y/r"', 'resource == Tool::"sql"'])
PATTERNS = st.sampled_from([["*"], ["x/*"], ["y/r"], ["x/r"], []])
NAMES = st.sampled_from([["*"], ["sql"], ["house/*"], []])


@st.composite
def sets(draw: st.DrawFn) -> PolicySet:
    """A few permits and forbids."""
    parts = []
    for number, (effect, bodies) in enumerate([("permit", PERMITS)] * 2 + [("forbid", FORBIDS)] * 2):
        if number == 0 or draw(st.booleans()):
            on = "resource" if number == 0 else draw(SCOPED)
            what = "action" if on == "resource" else 'action in [Action::"credential", Action::"use"]'
            parts.append(f'@id("p{number}") {effect} (principal, {what}, {on}) when {{ {draw(bodies)} }};')
    return source.parse({"a": "\n".join(parts)})


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[Task], Act, Any]:
    """A task of a chain of one or two, and what it asks."""
    wide = scope(
        *draw(PATTERNS),
        tools=patterns(draw(NAMES)),
        destinations=patterns(draw(NAMES)),
        sensitivity=draw(st.sampled_from(Sensitivity)),
    )
    root = task(scope=wide)
    chain = [root, task(root, scope=scope(*draw(PATTERNS)))] if draw(st.booleans()) else [root]
    asked = draw(st.sampled_from(ROLES))
    action = draw(st.sampled_from([Action.OBTAIN, Action.RENEW, Action.USE, Action.OPEN]))
    act = Act(
        action=action,
        resource={Action.USE: "sql", Action.OPEN: str(BILLING)}.get(action, asked.full_name),
        sensitivity=asked.sensitivity,
        tool=draw(st.sampled_from([None, "sql"])),
        destination=draw(st.sampled_from([None, "house/mail", "mail/out"])),
        claimed_sensitivity=draw(st.none() | st.sampled_from(Sensitivity)),
        confidence=draw(st.sampled_from([0, 49, 51, 81, 100])),
    )
    known = facts(
        role=asked,
        roles=ROLES,
        requested=scope(*draw(PATTERNS), sensitivity=draw(st.sampled_from(Sensitivity))),
        strength=draw(st.sampled_from(["none", "weak-peer", "own-uid", "pod"])),
    )
    return chain, act, known


@settings(max_examples=300, deadline=None)
@given(sets(), questions())
def test_a_named_change_permits(policies: PolicySet, asked: tuple[list[Task], Act, Any]) -> None:
    """Each change is made in the question itself, and the whole decision is asked again."""
    chain, act, known = asked
    decision = decide(policies, caller(), chain, act, known, NOW)
    changes = search(policies, question(chain, act, known), lambda other: judge(policies, caller(), other).permits)
    if decision.permits or decision.policies == ("evaluation",):
        assert decision.nearest == ()
        return
    assert decision.nearest == (tuple(change.words for change in changes) or (NONE,))
    for change in changes:
        again = decide(policies, caller(), _made(change, chain), change.question.act, change.question.facts, NOW)
        assert again.permits, (change.words, again.reason)


def _made(change: Change, chain: list[Task]) -> list[Task]:
    """The chain with the scope the change speaks of, on the task and every task above it."""
    return [replace(one, scope=change.question.scope) for one in chain] if change.fact == "scope" else chain
