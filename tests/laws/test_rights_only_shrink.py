"""Law 6: rights only shrink, down a chain and over time.

The oracle knows nothing of patterns: it holds, for every name of a small world, who may reach it, and narrows by
intersecting those sets.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from broker.model.scope import EVERYTHING, Budget, Pattern, Scope, Sensitivity
from broker.model.task import Task, effective_scope
from broker.policy import source
from broker.policy.decide import decide
from fakes.nouns import NOW, caller, facts, obtain, role, task

NAMES = ["/".join(parts) for parts in product("ab", repeat=2)] + ["/".join(parts) for parts in product("ab", repeat=3)]
PATTERNS = st.sampled_from([Pattern(text) for text in ["*", "a/*", "b/*", "a/a/*", "a/b/*", "b/a/*", *NAMES]])
BUDGETS = st.none() | st.integers(0, 3)
SCOPES = st.builds(
    lambda roles, tools, destinations, sensitivity, secrets, decisions: Scope(
        roles=roles,
        tools=tools,
        destinations=destinations,
        sensitivity=sensitivity,
        budget=Budget(secrets=secrets, decisions=decisions),
    ),
    st.frozensets(PATTERNS, max_size=4),
    st.frozensets(PATTERNS, max_size=2),
    st.frozensets(PATTERNS, max_size=2),
    st.sampled_from(Sensitivity),
    BUDGETS,
    BUDGETS,
)

Reach = tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[Sensitivity], frozenset[int], frozenset[int]]


def reach(scope: Scope) -> Reach:
    """Everything a scope lets through, name by name, level by level, number by number."""
    return (
        frozenset(name for name in NAMES if scope.allows_role(name)),
        frozenset(name for name in NAMES if scope.allows_tool(name)),
        frozenset(name for name in NAMES if scope.allows_destination(name)),
        frozenset(level for level in Sensitivity if level <= scope.sensitivity),
        frozenset(n for n in range(6) if scope.budget.secrets is None or n <= scope.budget.secrets),
        frozenset(n for n in range(6) if scope.budget.decisions is None or n <= scope.budget.decisions),
    )


def inside(one: Reach, other: Reach) -> bool:
    """Whether `one` lets nothing through that `other` stops."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def both(one: Reach, other: Reach) -> Reach:
    """What both let through."""
    met = [mine & theirs for mine, theirs in zip(one, other, strict=True)]
    return (met[0], met[1], met[2], met[3], met[4], met[5])  # type: ignore[return-value] # a tuple of sets of each kind


@given(SCOPES, SCOPES)
def test_a_meet_lets_through_what_both_do(one: Scope, other: Scope) -> None:
    """No more and no less; in either order; within both."""
    met = one.meet(other)
    assert reach(met) == both(reach(one), reach(other)) == reach(other.meet(one))
    assert met.within(one)
    assert met.within(other)


@given(SCOPES, SCOPES, SCOPES)
def test_meets_compose(one: Scope, other: Scope, third: Scope) -> None:
    """The order in which a chain is met does not matter, and meeting twice is meeting once."""
    assert reach(one.meet(other).meet(third)) == reach(one.meet(other.meet(third)))
    assert reach(one.meet(one)) == reach(one.meet(EVERYTHING)) == reach(one)


@given(SCOPES, SCOPES)
def test_within_is_sound(one: Scope, other: Scope) -> None:
    """What lies within lets nothing more through; a scope that lies within is the meet."""
    if one.within(other):
        assert inside(reach(one), reach(other))
        assert reach(one.meet(other)) == reach(one)
    assert one.within(one)
    assert one.within(EVERYTHING)


ALL = source.parse({"a": '@id("all") permit (principal, action, resource);'})


@settings(max_examples=100)
@given(st.lists(SCOPES, min_size=1, max_size=4), st.sampled_from(NAMES), st.sampled_from(Sensitivity))
def test_no_permit_lies_outside_any_scope_of_the_chain(scopes: list[Scope], name: str, level: Sensitivity) -> None:
    """With policies that permit everything, the chain alone decides, exactly."""
    chain: list[Task] = []
    for one in scopes:
        chain.append(task(chain[-1] if chain else None, scope=one))
    known = facts(role=role(name, sensitivity=level))
    decision = decide(ALL, caller(), chain, obtain(name, sensitivity=level), known, NOW)
    assert decision.permits is all(name in reach(one)[0] and level <= one.sensitivity for one in scopes)


class Tree(RuleBasedStateMachine):
    """Tasks open children and are narrowed, in any order; nobody's reach ever grows."""

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Task] = {}
        self.oracle: dict[str, Reach] = {}
        self.before: dict[str, Reach] = {}

    @rule(target=opened, scope=SCOPES)
    def open_root(self, scope: Scope) -> str:
        made = task(scope=scope)
        self.tasks[made.id], self.oracle[made.id] = made, reach(scope)
        return made.id

    @rule(target=opened, above=opened, scope=SCOPES)
    def open_child(self, above: str, scope: Scope) -> str:
        made = task(self.tasks[above], scope=scope)
        self.tasks[made.id] = made
        self.oracle[made.id] = reach(scope)
        return made.id

    @rule(name=opened, scope=SCOPES)
    def narrow(self, name: str, scope: Scope) -> None:
        old = self.tasks[name]
        self.tasks[name] = replace(old, scope=old.scope.meet(scope), version=old.version + 1)
        self.oracle[name] = both(self.oracle[name], reach(scope))

    def chain(self, name: str) -> list[Task]:
        line = [self.tasks[name]]
        while line[0].parent is not None:
            line.insert(0, self.tasks[line[0].parent])
        return line

    @invariant()
    def the_effective_scope_is_what_the_oracle_says(self) -> None:
        for name in self.tasks:
            expected = self.oracle[name]
            for above in self.chain(name)[:-1]:
                expected = both(expected, self.oracle[above.id])
            now = reach(effective_scope(self.chain(name)))
            assert now == expected
            assert inside(now, self.before.get(name, now))
            self.before[name] = now

    @invariant()
    def a_child_reaches_no_more_than_its_parent(self) -> None:
        for name, one in self.tasks.items():
            if one.parent is not None:
                above = effective_scope(self.chain(one.parent))
                assert effective_scope(self.chain(name)).within(above)


TestTree = Tree.TestCase
TestTree.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
