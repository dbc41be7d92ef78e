"""Which IDs a pattern means."""

from __future__ import annotations

import pytest

from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.match import IdPattern


def spiffe_id(text: str) -> SpiffeId:
    """An ID, written short."""
    return SpiffeId.parse(f"spiffe://{text}")


def test_exactly_means_one_id() -> None:
    """Nothing above, below or beside it."""
    pattern = IdPattern.exactly(spiffe_id("a/b"))
    assert pattern.matches(spiffe_id("a/b"))
    assert not any(pattern.matches(spiffe_id(each)) for each in ("a/b/c", "a", "a/bb", "a/B", "c/b"))


def test_under_goes_by_whole_segments() -> None:
    """`/agents` is not below `/agent`, and neither is `/agent` itself."""
    pattern = IdPattern.under(spiffe_id("a/agent"))
    assert pattern.matches(spiffe_id("a/agent/x"))
    assert pattern.matches(spiffe_id("a/agent/x/y"))
    assert not any(pattern.matches(spiffe_id(each)) for each in ("a/agent", "a/agents/x", "b/agent/x", "a"))


def test_member_of_means_every_workload_of_one_domain() -> None:
    """Another domain that ends or begins alike is another domain; the domain's own ID is no workload."""
    pattern = IdPattern.member_of(TrustDomain.parse("example.org"))
    assert pattern.matches(spiffe_id("example.org/a"))
    assert not any(pattern.matches(spiffe_id(each)) for each in ("example.org", "x.example.org/a", "example.org.x/a"))


@pytest.mark.parametrize("text", ["spiffe://a/b", "spiffe://a", "spiffe://a/b/**", "spiffe://a/**"])
def test_a_pattern_prints_as_it_was_read(text: str) -> None:
    """Parse and print are inverse."""
    assert str(IdPattern.parse(text)) == text


@pytest.mark.parametrize("text", ["", "**", "spiffe://**", "spiffe://a/*", "spiffe://a/**/b", "spiffe://a//**", "/**"])
def test_a_star_anywhere_else_is_refused(text: str) -> None:
    """There is one wildcard, and it stands at the end."""
    with pytest.raises(Malformed):
        IdPattern.parse(text)
