"""Scopes: what a pattern means, and what may be read as one."""

from __future__ import annotations

from itertools import product

import pytest

from broker.model.scope import EVERYTHING, Budget, Pattern, Scope, Sensitivity, patterns
from ca.errors import Malformed


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/bc", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", True),
        ("a/*", "a", False),
        ("a/*", "ab/c", False),
        ("*", "anything/at/all", True),
        ("a/*", "a/../b", False),
        ("*", "a//b", False),
        ("*", "", False),
        ("a/*", "a/*", False),
        ("*", "*", False),
    ],
)
def test_what_a_pattern_means(pattern: str, name: str, *, expected: bool) -> None:
    """Whole segments count, and what is no name (a `..`, an empty segment, a `*`) is meant by nothing."""
    assert Pattern.parse(pattern).matches(name) is expected


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a//b", "a*", "*/a", "a/*/b", "a/**", "..", "a/../b", "a/.", "a\n", "a\u202eb", "x" * 201],
)
def test_what_is_no_pattern(text: str) -> None:
    """A pattern has one reading or none."""
    with pytest.raises(Malformed):
        Pattern.parse(text)


def test_within_is_what_matching_says() -> None:
    """`a.within(b)` holds exactly when no name is meant by a and not by b, over every short name."""
    names = ["/".join(parts) for length in (1, 2, 3) for parts in product(("a", "ab"), repeat=length)]
    every = [Pattern.parse(name) for name in names] + [Pattern.parse(f"{name}/*") for name in names] + [Pattern("*")]
    deeper = [*names, *(f"{name}/c" for name in names), *(f"{name}/c/d" for name in names)]
    for one, other in product(every, every):
        meant = all(other.matches(name) for name in deeper if one.matches(name))
        assert one.within(other) is meant, (one, other)


@pytest.mark.parametrize("text", ["Public", "PUBLIC", "", "secret", "0"])
def test_a_sensitivity_is_one_of_four_words(text: str) -> None:
    """Nothing is guessed; the sentence names the four."""
    with pytest.raises(Malformed, match="expected one of `public`, `internal`, `confidential`, `restricted`"):
        Sensitivity.parse(text)


def test_json_there_and_back() -> None:
    """A scope survives its JSON form."""
    scope = Scope(
        roles=patterns(["a/*", "b/c"]),
        tools=patterns(["sql"]),
        destinations=patterns(["*"]),
        sensitivity=Sensitivity.CONFIDENTIAL,
        budget=Budget(secrets=3),
    )
    assert Scope.from_json(scope.to_json()) == scope


@pytest.mark.parametrize(
    "value",
    [
        {"roles": "a/*"},
        {"sensitivity": "secret"},
        {"budget": [1]},
        {"budget": {"secrets": -1}},
        {"budget": {"secrets": True}},
        {"budget": {"secrets": "3"}},
        {"roles": [f"r{number}" for number in range(257)]},
    ],
)
def test_what_is_no_scope(value: dict[str, object]) -> None:
    """A text isn't taken for a list of its letters, and a budget is a whole number of zero or more."""
    with pytest.raises(Malformed):
        Scope.from_json(value)


def test_what_is_missing_reaches_nothing() -> None:
    """The empty object is the empty scope."""
    assert Scope.from_json({}) == Scope()
    assert not Scope().allows_role("a/b")
    assert not Scope().allows_tool("sql")
    assert not Scope().allows_destination("house/mail")


@pytest.mark.parametrize("of", ["roles", "tools", "destinations"])
def test_a_scope_is_within_another_in_every_kind_of_name(of: str) -> None:
    """What one kind gives is not paid for by another."""
    narrow, wide = Scope(**{of: patterns(["a/b"])}), Scope(**{of: patterns(["a/*", "c"])})  # type: ignore[arg-type]
    assert narrow.within(wide)
    assert Scope().within(narrow)
    assert not wide.within(narrow)
    assert not narrow.within(Scope())
    others = {other: patterns(["*"]) for other in ("roles", "tools", "destinations") if other != of}
    assert not narrow.within(Scope(**others))  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["secrets", "decisions"])
def test_a_budget_is_within_another_in_both_numbers(of: str) -> None:
    """As many is within, one more is not, and neither number pays for the other."""
    two = Budget(**{of: 2})
    assert two.within(two)
    assert Budget(**{of: 1}).within(two)
    assert two.within(Budget())
    assert not Budget(**{of: 3}).within(two)
    assert not Budget().within(two)
    assert not Scope(budget=Budget(**{of: 3})).within(Scope(budget=two))
    assert not Scope(sensitivity=Sensitivity.INTERNAL).within(Scope())


def test_a_budget_is_within_a_bound_only_when_it_has_one() -> None:
    """No number at all is more than any number."""
    assert Budget(secrets=1).within(Budget(secrets=1))
    assert not Budget().within(Budget(secrets=1))
    assert Budget().within(Budget())
    assert Scope().within(EVERYTHING)


def test_what_both_reach_in_every_respect() -> None:
    """Each part by itself; a budget nobody set is no bound."""
    one = Scope(
        roles=patterns(["a/*"]),
        tools=patterns(["t/*"]),
        destinations=patterns(["d/*"]),
        sensitivity=Sensitivity.CONFIDENTIAL,
        budget=Budget(secrets=3, decisions=9),
    )
    other = Scope(
        roles=patterns(["a/x", "b/y"]),
        tools=patterns(["t/x", "u"]),
        destinations=patterns(["d/x", "e"]),
        sensitivity=Sensitivity.INTERNAL,
        budget=Budget(decisions=4),
    )
    assert one.meet(other) == Scope(
        roles=patterns(["a/x"]),
        tools=patterns(["t/x"]),
        destinations=patterns(["d/x"]),
        sensitivity=Sensitivity.INTERNAL,
        budget=Budget(secrets=3, decisions=4),
    )
