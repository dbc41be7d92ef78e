"""The smallest change that would permit, fact by fact, and never a made-up one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from broker.model.act import Act, Action
from broker.model.decision import Decision
from broker.model.scope import Pattern, Scope, Sensitivity, patterns
from broker.model.task import Task
from broker.policy import source
from broker.policy.decide import decide, judge
from broker.policy.nearest import MOST, NONE, question, search
from broker.policy.slices import PolicySet
from fakes.nouns import BILLING, NOW, caller, facts, obtain, role, scope, task


def _set(when: str, what: str = "permit", scoped: str = "resource") -> PolicySet:
    text = f'@id("one") {what} (principal, action, {scoped}) when {{ {when} }};'
    rest = '@id("rest") permit (principal, action, resource);' if what == "forbid" else ""
    return source.parse({"a": text + rest})


def _near(policies: PolicySet, chain: list[Task], act: Act, **known: Any) -> Decision:
    decision = decide(policies, caller(), chain, act, facts(**known), NOW)
    assert not decision.permits
    return decision


def test_the_weakest_strength_that_suffices() -> None:
    """Not the strongest there is."""
    decision = _near(_set("context.attested.strength >= 4"), [task()], obtain(), strength="shared-uid")
    assert decision.nearest == ("the attested strength is `container`, not `shared-uid`",)


def test_the_least_confidence_that_suffices() -> None:
    """Its edge stands in the policy: `< 70` asks for 70, `<= 70` for 71."""
    below = _near(_set("context.claimed.confidence < 70", "forbid"), [task()], obtain(confidence=3))
    assert below.nearest == ("the claimed confidence is 70, not 3",)
    at_most = _near(_set("context.claimed.confidence <= 70", "forbid"), [task()], obtain())
    assert at_most.nearest == ("the claimed confidence is 71, not 0",)


def test_another_destination_or_none() -> None:
    """Values come from the task's scope and from the policies."""
    policies = source.parse(
        {
            "a": '@id("all") permit (principal, action, resource);'
            '@id("out") forbid (principal, action, resource) when { !(context.claimed has destination) };'
            '@id("only") forbid (principal, action, resource)'
            ' when { context.claimed has destination && context.claimed.destination != "house/mail" };'
        }
    )
    one = task(scope=scope("*", destinations=patterns(["mail/out", "house/*"])))
    decision = _near(policies, [one], obtain(destination="mail/out"))
    assert decision.nearest == ("the destination is `house/mail`, not `mail/out`",)


def test_a_role_inside_the_scope_that_is_permitted() -> None:
    """Roles of the same target come first; roles outside the scope are never named."""
    others = (
        role("maps/reader"),
        role("orders-db/reader"),
        role("orders-db/owner", sensitivity=Sensitivity.RESTRICTED),
    )
    policies = _set("context.broker.sensitivity <= 1")
    asked = obtain("orders-db/owner", sensitivity=Sensitivity.RESTRICTED)
    known = {"role": others[2], "roles": others}
    assert _near(policies, [task()], asked, **known).nearest == (
        "the role is `orders-db/reader`, not `orders-db/owner`",
    )
    maps = [task(scope=scope("maps/*", "orders-db/owner"))]
    assert _near(policies, maps, asked, **known).nearest == ("the role is `maps/reader`, not `orders-db/owner`",)
    alone = [task(scope=scope("orders-db/owner"))]
    assert _near(policies, alone, asked, **known).nearest == (NONE,)


def test_a_wider_scope() -> None:
    """Everything the act needs beyond the scope is one change: the scope."""
    policies = source.parse({"a": '@id("all") permit (principal, action, resource);'})
    narrow = [task(scope=Scope())]
    decision = _near(policies, narrow, obtain(tool="sql"))
    expected = (
        "the scope of the task, and of every task above it, reaches `orders-db/readonly` up to `internal` with `sql`"
    )
    assert decision.nearest == (expected,)


def test_a_milder_claim() -> None:
    """Who claimed more than is known is told that the claim stood in the way."""
    policies = _set("context.broker.sensitivity >= 2", "forbid")
    decision = _near(policies, [task()], obtain(claimed_sensitivity=Sensitivity.RESTRICTED))
    assert decision.nearest == ("no higher sensitivity than the role's own is claimed",)


def test_a_lower_ceiling_or_an_earlier_end_for_a_task() -> None:
    """When a task is opened what is asked for can be changed."""
    act = Act(action=Action.OPEN, resource=str(BILLING))
    wide = scope("*", sensitivity=Sensitivity.RESTRICTED)
    ceiling = _near(_set("context.broker.sensitivity <= 2"), [], act, role=None, requested=wide)
    assert ceiling.nearest == ("the ceiling asked for is `confidential`",)
    text = '@id("a") permit (principal, action == Action::"open", resource)'
    policies = source.parse({"a": text + " when { context.broker has lasts && context.broker.lasts <= 600 };"})
    late = _near(policies, [], act, role=None, requested=wide, lasts=timedelta(hours=9))
    assert late.nearest == ("the task ends by itself within 600 seconds",)


def test_another_tool() -> None:
    """For an act with a tool the resource is the tool."""
    policies = source.parse(
        {"a": '@id("a") permit (principal, action == Action::"use", resource == Tool::"sql.read");'}
    )
    one = task(scope=scope("*", tools=patterns(["*"])))
    decision = _near(policies, [one], Act(action=Action.USE, resource="sql.write"), role=None)
    assert decision.nearest == ("the tool is `sql.read`, not `sql.write`",)


def test_no_single_change_is_said_when_two_are_needed() -> None:
    """It isn't invented."""
    policies = _set("context.attested.strength >= 5 && context.broker.sensitivity == 0")
    assert _near(policies, [task()], obtain()).nearest == (NONE,)


def test_a_search_has_a_price_that_is_known() -> None:
    """However many values and roles there are, at most `MOST` judgements are asked for."""
    roles = tuple(role(f"db-{number}/reader") for number in range(500))
    numbers = " || ".join(f"context.claimed.confidence == {number}" for number in range(60))
    policies = _set(f"({numbers}) || true", "forbid")
    asked = question(
        [task(scope=scope("*", destinations=frozenset({Pattern("*")})))], obtain(destination="a"), facts(roles=roles)
    )
    count = 0

    def counting(other: Any) -> bool:
        nonlocal count
        count += 1
        return judge(policies, caller(), other).permits

    assert search(policies, asked, counting) == ()
    assert 20 < count <= MOST
