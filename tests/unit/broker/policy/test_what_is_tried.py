"""Every change a search tries, in its order, with the fact it changes and the words it would be told in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.model.act import Act, Action
from broker.model.scope import Budget, Scope, Sensitivity, patterns
from broker.model.task import Task
from broker.policy import source
from broker.policy.nearest import MOST, Change, Question, question, search
from broker.policy.slices import PolicySet
from fakes.nouns import BILLING, facts, obtain, role, scope, task

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = sorted(Sensitivity)
NUMBERS = source.parse(
    {
        "a": '@id("a") forbid (principal, action == Action::"obtain", resource)'
        " when { context.claimed.confidence == 40 || context.claimed.confidence == 70 };"
        '@id("b") permit (principal, action == Action::"open", resource)'
        " when { context.broker has lasts && (context.broker.lasts == 60 || context.broker.lasts == 600"
        " || context.broker.lasts == 1 || context.broker.lasts == 0 || context.broker.lasts == 2147483648) };"
    }
)
WORDS = source.parse(
    {
        "a": '@id("a") forbid (principal, action == Action::"obtain", resource)'
        ' when { context.claimed has destination && context.claimed.destination == "mail/in" };'
        '@id("b") permit (principal, action == Action::"use", resource == Tool::"sql.read");'
    }
)


def tried(policies: PolicySet, asked: Question) -> list[Change]:
    """Each change that is judged: told by a judge to whom exactly that one suffices."""
    found: list[Change] = []
    for wanted in range(MOST):
        count = -1

        def judge(_: Question, wanted: int = wanted) -> bool:
            nonlocal count
            count += 1
            return count == wanted

        change = search(policies, asked, judge)
        if not change:
            break
        found += change
    return found


def of(fact: str, changes: list[Change]) -> list[Change]:
    """Those of one fact."""
    return [change for change in changes if change.fact == fact]


def words(fact: str, changes: list[Change]) -> list[str]:
    """What would be told."""
    return [change.words for change in of(fact, changes)]


def asking(act: Act | None = None, chain: list[Task] | None = None, **known: Any) -> Question:
    """A question; of a task that may do anything, unless said."""
    everything = scope("*", tools=patterns(["*"]), destinations=patterns(["*"]))
    return question([task(scope=everything)] if chain is None else chain, act or obtain(), facts(**known))


def test_facts_come_in_one_order() -> None:
    """Those of few values first."""
    every = tried(
        WORDS, asking(obtain(tool="sql", destination="x", claimed_sensitivity=RESTRICTED), roles=[role("a/b")])
    )
    order = list(dict.fromkeys(change.fact for change in every))
    assert order == ["scope", "strength", "sensitivity", "confidence", "destination", "tool", "role"]


def test_stronger_attestations_and_no_weaker_ones() -> None:
    """From the next on."""
    found = of("strength", tried(NUMBERS, asking(strength="own-uid")))
    assert [change.question.facts.strength for change in found] == ["container", "pod", "tpm"]
    assert found[0].words == "the attested strength is `container`, not `own-uid`"
    assert of("strength", tried(NUMBERS, asking(strength="tpm"))) == []


def test_confidence_at_the_edges_of_policies() -> None:
    """Above first, upwards, to a hundred; then the two next below."""
    found = of("confidence", tried(NUMBERS, asking(obtain(confidence=50))))
    assert [change.question.act.confidence for change in found] == [69, 70, 71, 100, 41, 40]
    assert found[0].words == "the claimed confidence is 69, not 50"
    least = of("confidence", tried(NUMBERS, asking(obtain(confidence=100))))
    assert [change.question.act.confidence for change in least] == [71, 70]
    zero = source.parse(
        {"a": '@id("a") forbid (principal, action, resource) when { context.claimed.confidence == 0 };'}
    )
    assert [one.question.act.confidence for one in of("confidence", tried(zero, asking(obtain(confidence=1))))] == [
        100,
        0,
    ]


def test_confidence_is_tried_at_sixteen_edges_at_most() -> None:
    """Fourteen above and two below."""
    numbers = " || ".join(f"context.claimed.confidence == {number}" for number in range(1, 99, 3))
    many = source.parse({"a": f'@id("a") forbid (principal, action, resource) when {{ {numbers} }};'})
    found = of("confidence", tried(many, asking(obtain(confidence=50))))
    assert [change.question.act.confidence for change in found] == [*range(51, 65), 49, 48]


def test_another_destination() -> None:
    """None at all, then what the scope names exactly and what stands in policies, as far as the scope allows."""
    one = task(scope=scope("*", destinations=patterns(["mail/*", "house", "disk"])))
    found = of("destination", tried(WORDS, asking(obtain(destination="disk"), [one])))
    assert [change.question.act.destination for change in found] == [None, "house", "mail/in"]
    assert [change.words for change in found] == [
        "no destination is claimed, not `disk`",
        "the destination is `house`, not `disk`",
        "the destination is `mail/in`, not `disk`",
    ]
    unsaid = of("destination", tried(WORDS, asking(obtain(), [one])))
    assert [change.question.act.destination for change in unsaid] == ["disk", "house"]


def test_eight_destinations_at_most() -> None:
    """In the order of their names."""
    one = task(scope=scope("*", destinations=patterns([f"d{number}" for number in range(9)])))
    found = of("destination", tried(WORDS, asking(obtain(), [one])))
    assert [change.question.act.destination for change in found] == [f"d{number}" for number in range(8)]


def test_another_tool_to_claim() -> None:
    """None, what the scope names, and every tool a policy names."""
    one = task(scope=scope("*", tools=patterns(["sql.read", "mail"])))
    found = of("tool", tried(WORDS, asking(obtain(tool="mail"), [one])))
    assert [change.question.act.tool for change in found] == [None, "sql.read"]
    assert [change.words for change in found] == [
        "no tool is claimed, not `mail`",
        "the tool is `sql.read`, not `mail`",
    ]
    assert {change.question.act.resource for change in found} == {"orders-db/readonly"}
    shut = task(scope=scope("*", tools=patterns(["mail"])))
    assert words("tool", tried(WORDS, asking(obtain(), [shut]))) == ["the tool is `mail`, not `None`"]
    unsaid = of("tool", tried(WORDS, asking(obtain(), [one])))
    assert [change.question.act.tool for change in unsaid] == ["mail", "sql.read"]
    named = source.parse(
        {
            "a": '@id("a") forbid (principal, action, resource)'
            ' when { context.claimed has tool && context.claimed.tool == "t" };'
        }
    )
    assert [change.question.act.tool for change in of("tool", tried(named, asking()))] == ["t"]


def test_another_tool_to_use() -> None:
    """It is the resource; an act without one can't be."""
    found = of("tool", tried(WORDS, asking(Act(action=Action.USE, resource="sql.write"), role=None)))
    assert [change.question.act.resource for change in found] == ["sql.read"]
    assert {change.question.act.tool for change in found} == {None}


def test_eight_tools_at_most() -> None:
    """In the order of their names."""
    one = task(scope=scope("*", tools=patterns([f"t{number}" for number in range(9)])))
    found = of("tool", tried(NUMBERS, asking(obtain(), [one])))
    assert [change.question.act.tool for change in found] == [f"t{number}" for number in range(8)]


def test_other_roles_those_of_the_same_target_first() -> None:
    """The whole name of the target counts; what the scope does not reach is not named."""
    there = [role(name) for name in ("b/one", "orders/x", "orders-db/z", "orders-db/a", "hidden/one")]
    one = task(scope=scope("orders/*", "orders-db/*", "b/*"))
    known = {"role": role("orders-db/a"), "roles": there}
    found = of("role", tried(NUMBERS, asking(obtain("orders-db/a"), [one], **known)))
    assert [change.question.act.resource for change in found] == ["orders-db/z", "b/one", "orders/x"]
    assert found[0].words == "the role is `orders-db/z`, not `orders-db/a`"
    assert found[0].question.facts.role == there[2]
    nested = [role("orders-db/team/b"), role("orders-db/c")]
    deep = of("role", tried(NUMBERS, asking(obtain("orders-db/team/a"), roles=[role("a/a"), *nested])))
    assert [change.question.act.resource for change in deep] == ["orders-db/c", "orders-db/team/b", "a/a"]
    use = Act(action=Action.USE, resource="sql")
    assert of("role", tried(NUMBERS, asking(use, role=None, roles=there))) == []


def test_a_role_has_its_own_sensitivity() -> None:
    """It comes from the settings."""
    (found,) = of("role", tried(NUMBERS, asking(roles=[role("a/b", sensitivity=CONFIDENTIAL)])))
    assert found.question.act.sensitivity is CONFIDENTIAL


@pytest.mark.parametrize(("claimed", "tries"), [(None, 0), (PUBLIC, 0), (INTERNAL, 0), (CONFIDENTIAL, 1)])
def test_a_claim_that_is_higher_than_what_is_known(claimed: Sensitivity | None, tries: int) -> None:
    """Only that one can stand in the way."""
    found = of("sensitivity", tried(NUMBERS, asking(obtain(claimed_sensitivity=claimed))))
    assert [change.words for change in found] == ["no higher sensitivity than the role's own is claimed"] * tries
    assert all(change.question.act.claimed_sensitivity is None for change in found)


def test_a_lower_ceiling_for_a_task() -> None:
    """The next below first; another's own ceiling is not tried."""
    act = Act(action=Action.OPEN, resource=str(BILLING))
    found = of(
        "sensitivity", tried(NUMBERS, asking(act, [], role=None, requested=scope("*", sensitivity=CONFIDENTIAL)))
    )
    assert [change.words for change in found] == [
        "the ceiling asked for is `internal`",
        "the ceiling asked for is `public`",
    ]
    assert [change.question.facts.requested for change in found] == [
        scope("*", sensitivity=INTERNAL), scope("*", sensitivity=PUBLIC),
    ]  # fmt: skip
    assert of("sensitivity", tried(NUMBERS, asking(act, [], role=None))) == []


def test_an_earlier_end_for_a_task() -> None:
    """Seconds that stand in policies, the longest first; none that is no length of time or not shorter."""
    act = Act(action=Action.OPEN, resource=str(BILLING))
    endless = of("lasts", tried(NUMBERS, asking(act, [], role=None, requested=scope("*"))))
    assert [change.question.facts.lasts for change in endless] == [timedelta(seconds=each) for each in (600, 60, 1)]
    assert endless[0].words == "the task ends by itself within 600 seconds"
    shorter = asking(act, [], role=None, requested=scope("*"), lasts=timedelta(seconds=60))
    assert words("lasts", tried(NUMBERS, shorter)) == ["the task ends by itself within 1 seconds"]
    assert of("lasts", tried(NUMBERS, asking())) == []


def test_eight_ends_at_most() -> None:
    """The longest."""
    lengths = " || ".join(f"context.broker.lasts == {number}" for number in range(1, 10))
    text = '@id("a") permit (principal, action == Action::"open", resource)'
    text += f" when {{ context.broker has lasts && ({lengths}) }};"
    act = Act(action=Action.OPEN, resource=str(BILLING))
    found = of("lasts", tried(source.parse({"a": text}), asking(act, [], role=None, requested=scope("*"))))
    assert [change.question.facts.lasts for change in found] == [timedelta(seconds=each) for each in range(9, 1, -1)]


def test_a_child_that_asks_for_more_than_its_parent_has() -> None:
    """Less of it is tried: what both reach. Without a parent, or when it is within, nothing is."""
    act, above = Act(action=Action.OPEN, resource=str(BILLING)), [task(scope=scope("orders-db/*"))]
    (found,) = of("scope", tried(NUMBERS, asking(act, above, role=None, requested=scope("orders-db/a", "maps/b"))))
    assert found.words == "nothing is asked for that the task above may not reach"
    assert found.question.facts.requested == scope("orders-db/a")
    assert found.question.scope == scope("orders-db/*")
    for chain, requested in (([], scope("maps/b")), (above, scope("orders-db/a")), (above, None)):
        assert of("scope", tried(NUMBERS, asking(act, chain, role=None, requested=requested))) == []


def wider(act: Act, narrow: Scope, **known: Any) -> tuple[str, Scope]:
    """The one wider scope that is tried, and its words."""
    (found,) = of("scope", tried(NUMBERS, asking(act, [task(scope=narrow)], **known)))
    return found.words, found.question.scope


def test_a_scope_that_reaches_what_is_wanted() -> None:
    """The role, the tool, the destination, and as much sensitivity as that needs; nothing else."""
    begin = "the scope of the task, and of every task above it, reaches "
    assert wider(obtain(), scope("a/b")) == (begin + "`orders-db/readonly`", scope("a/b", "orders-db/readonly"))
    low = Scope(roles=patterns(["a/b"]), sensitivity=PUBLIC)
    assert wider(obtain(), low) == (
        begin + "`orders-db/readonly` up to `internal`",
        Scope(roles=patterns(["a/b", "orders-db/readonly"]), sensitivity=INTERNAL),
    )
    assert wider(obtain(tool="sql", destination="mail"), scope("*")) == (
        begin + "`orders-db/readonly` with `sql`, `mail`",
        scope("*", "orders-db/readonly", tools=patterns(["sql"]), destinations=patterns(["mail"])),
    )


def test_a_scope_for_the_use_of_a_tool() -> None:
    """A tool is no role."""
    use = Act(action=Action.USE, resource="sql", sensitivity=INTERNAL)
    said, found = wider(use, Scope(sensitivity=RESTRICTED), role=None)
    assert said == "the scope of the task, and of every task above it, reaches `sql`"
    assert found == Scope(tools=patterns(["sql"]), sensitivity=RESTRICTED)


@pytest.mark.parametrize(
    ("own", "claimed", "configured", "needed"),
    [
        (INTERNAL, None, PUBLIC, INTERNAL),
        (PUBLIC, CONFIDENTIAL, PUBLIC, CONFIDENTIAL),
        (PUBLIC, None, RESTRICTED, RESTRICTED),
    ],
)
def test_as_much_sensitivity_as_anybody_says(
    own: Sensitivity, claimed: Sensitivity | None, configured: Sensitivity, needed: Sensitivity
) -> None:
    """The act's, what is claimed, and what the settings say of the role: the highest."""
    act = obtain(sensitivity=own, claimed_sensitivity=claimed)
    found = wider(act, scope("a/b", sensitivity=PUBLIC), role=role(sensitivity=configured))[1]
    assert found.sensitivity is needed


def test_a_scope_that_reaches_it_is_not_tried() -> None:
    """It did not stand in the way."""
    reaching = task(scope=scope("orders-db/readonly", budget=Budget(secrets=1)))
    assert of("scope", tried(NUMBERS, asking(obtain(), [reaching]))) == []
