"""SPIFFE ID templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestor.rules.template import RESERVED, Template
from attestor.selector import Selector
from ca.errors import Malformed
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")


def user(name: str) -> frozenset[Selector]:
    """The selectors of a process of that user."""
    return frozenset({Selector("unix", f"user:{name}")})


def test_a_path_stands_in_the_servers_own_trust_domain() -> None:
    """`/agent/x` and its long form are one template."""
    short, long = Template.parse("/agent/x", DOMAIN), Template.parse("spiffe://example.org/agent/x", DOMAIN)
    assert short == long
    assert str(short.fill(frozenset())) == "spiffe://example.org/agent/x"


def test_a_placeholder_takes_the_value_of_its_selector() -> None:
    """`{unix.user}` is filled from `unix:user:…`."""
    assert str(Template.parse("/u/{unix.user}/x", DOMAIN).fill(user("ann"))) == "spiffe://example.org/u/ann/x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("spiffe://other.org/x", "another trust domain"),
        ("/sojourn/broker", "reserved"),
        ("/task/1", "reserved"),
        ("/task", "reserved"),
        ("/{unix.nobody}", "is no placeholder"),
        ("/{unix.user", "whole path segment"),
        ("/u-{unix.user}", "whole path segment"),
        ("/{unix.user}{unix.uid}", "whole path segment"),
        ("/a//b", "not a path segment"),
        ("/a/", "not a path segment"),
        ("/a/../b", "not a path segment"),
        ("/a b", "not a path segment"),
        ("agent", "must be"),
        ("/", "must be"),
        ("", "must be"),
    ],
)
def test_what_could_name_something_else_is_refused_when_read(text: str, why: str) -> None:
    """A foreign domain, a reserved path, an unknown or partial placeholder, an odd segment."""
    with pytest.raises(Malformed, match=why):
        Template.parse(text, DOMAIN)


@pytest.mark.parametrize("value", ["x/../task/1", "a/b", "..", ".", "", " ", "é", "a%2fb", "x\n"])
def test_a_value_that_is_not_one_segment_gives_nothing(value: str) -> None:
    """A placeholder fills exactly one segment."""
    with pytest.raises(Malformed):
        Template.parse("/u/{unix.user}", DOMAIN).fill(user(value))


@pytest.mark.parametrize("value", sorted(RESERVED))
def test_a_placeholder_can_not_reach_a_reserved_path(value: str) -> None:
    """A user called `sojourn` or `task` gets no identity from `/{unix.user}/broker`."""
    with pytest.raises(Malformed, match="reserved"):
        Template.parse("/{unix.user}/broker", DOMAIN).fill(user(value))


def test_a_placeholder_needs_exactly_one_selector() -> None:
    """None and two are both ambiguous."""
    template = Template.parse("/u/{unix.user}", DOMAIN)
    for selectors in (frozenset[Selector](), user("ann") | user("bob")):
        with pytest.raises(Malformed, match="exactly one"):
            template.fill(selectors)


@given(st.text(max_size=30))
def test_whatever_fills_a_placeholder_the_path_keeps_its_shape(value: str) -> None:
    """Any text either gives a path of the same number of segments, or nothing."""
    try:
        found = Template.parse("/u/{unix.user}/end", DOMAIN).fill(user(value))
    except Malformed:
        return
    assert found.path == f"/u/{value}/end"
    assert found.path.count("/") == 3
