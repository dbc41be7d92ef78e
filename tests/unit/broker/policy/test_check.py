"""What a policy must be besides valid."""

from __future__ import annotations

import pytest

from broker.policy import source
from broker.policy.decide import BUILT_IN
from broker.policy.source import BadPolicy


def _fault(text: str) -> str:
    with pytest.raises(BadPolicy) as raised:
        source.parse({"a.cedar": text})
    return str(raised.value)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_names_of_our_own_denials_are_taken(name: str) -> None:
    """A receipt that says `scope` means the broker's own answer, never a policy's."""
    assert f"may not be called `{name}`" in _fault(f'@id("{name}") permit (principal, action, resource);')


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a.", "x" * 65, "ä", "a/b"])
def test_a_name_can_be_read_anywhere(name: str) -> None:
    """In logs, metrics and commands."""
    assert "`@id" in _fault(f'@id("{name}") permit (principal, action, resource);')


def test_annotations_and_reasons() -> None:
    """Another annotation is a typing mistake; a reason is one printable line."""
    assert "unknown annotation `@raeson`" in _fault('@id("a") @raeson("x") permit (principal, action, resource);')
    for reason in ("", "  ", "a\\nb", "x" * 301):
        assert "`@reason` that is" in _fault(f'@id("a") @reason("{reason}") permit (principal, action, resource);')


def test_a_template_does_nothing_here_and_is_refused() -> None:
    """A forbid with a slot would be read and never apply."""
    assert "is a template" in _fault('@id("a") forbid (principal == ?principal, action, resource);')


@pytest.mark.parametrize(
    "thing",
    [
        'principal in AgentPath::"/agents"',
        'principal in AgentPath::"spiffe://example.org/agents/"',
        'principal in AgentPath::"spiffe://Example.org/agents"',
        'principal in AgentPath::"spiffe://example.org"',
        'principal == Agent::"billing"',
        'principal in TrustDomain::"spiffe://example.org"',
        'principal in TrustDomain::"Example.org"',
    ],
)
def test_what_nothing_can_be_called_is_refused(thing: str) -> None:
    """Cedar reads it as something that never matches: a forbid by such a name would protect nothing."""
    assert "which nothing can be" in _fault(f'@id("a") forbid ({thing}, action, resource);')


@pytest.mark.parametrize(
    "thing", ['Role::"readonly"', 'Role::"orders-db/*"', 'Target::"*"', 'Target::""', 'Tool::"a//b"']
)
def test_prefixes_belong_into_scopes(thing: str) -> None:
    """A policy names a role by its full name, or its target; patterns mean nothing to Cedar."""
    assert "which nothing can be" in _fault(f'@id("a") forbid (principal, action, resource == {thing});')


def test_names_are_read_in_conditions_too() -> None:
    """Wherever an entity stands."""
    text = '@id("a") forbid (principal, action, resource) when { principal in AgentPath::"agents" };'
    assert 'names `AgentPath::"agents"`' in _fault(text)
