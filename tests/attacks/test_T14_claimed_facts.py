"""T14: agents supply the facts they are judged by.

Attack: a policy that permits when the agent is confident, or says a harmless destination, is a policy the agent
fulfils by saying so. Such policies are not loaded, however the claim is dressed up; and no claim turns a denial of
policies that are loaded into a permit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model.scope import Sensitivity, patterns
from broker.policy import source
from broker.policy.decide import decide
from broker.policy.source import BadPolicy
from fakes.nouns import NOW, caller, facts, obtain, role, scope, task

DISGUISES = [
    "when { context.claimed.confidence > 90 }",
    'when { context["claimed"]["confidence"] > 90 }',
    "unless { context.claimed.confidence < 90 }",
    'when { context.claimed.purpose == "refund" }',
    'when { context.claimed has destination && context.claimed.destination like "house/*" }',
    "when { context.claimed has tool }",
    "when { context has claimed }",
    "when { (if context.attested.strength > 2 then context else context).claimed.confidence > 90 }",
    "when { {all: context}.all.claimed.confidence > 90 }",
    "when { [context].contains(context) }",
    "when { context == context }",
    "when { true && (false || context.claimed.confidence > 90) }",
    "when { if context.claimed.confidence > 90 then true else false }",
    "when { !(context.claimed.confidence < 90) }",
    'when { ["refund"].contains(context.claimed.purpose) }',
    "when { 90 < context.claimed.confidence + 0 }",
    "when { {c: context.claimed}.c.confidence > 90 }",
    "when { context.broker.sensitivity < context.claimed.confidence }",
]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_permit_that_reads_a_claim_is_not_loaded(disguise: str) -> None:
    """Whatever the shape, the whole set is refused, by file, line and name."""
    ours = '@id("ours") permit (principal, action, resource);'
    text = f'{ours}\n@id("trick") permit (principal, action, resource)\n{disguise};'
    with pytest.raises(BadPolicy) as raised:
        source.parse({"a.cedar": text})
    assert any(fault.startswith("a.cedar:2: policy `trick`: is a permit that ") for fault in raised.value.faults)


@pytest.mark.parametrize("disguise", DISGUISES[:5])
def test_a_forbid_may_read_a_claim(disguise: str) -> None:
    """A claim may make an answer stricter."""
    source.parse({"a.cedar": f'@id("strict") forbid (principal, action, resource) {disguise};'})


def test_a_bad_policy_takes_the_good_ones_with_it() -> None:
    """One such policy refuses the set: a set without its forbids would be another set."""
    good = '@id("good") permit (principal, action, resource);'
    with pytest.raises(BadPolicy):
        source.parse({"a": good, "b": f'@id("bad") permit (principal, action, resource) {DISGUISES[0]};'})


def _text(name: str) -> str:
    conditions = {
        "low": "context.broker.sensitivity <= 1",
        "exact": "context.broker.sensitivity == 2 && context.attested.strength >= 3",
        "strong": "context.attested.strength >= 5",
    }
    return f'@id("{name}") permit (principal, action, resource) when {{ {conditions[name]} }};'


POLICIES = source.parse(
    {
        "a": """
        @id("low") permit (principal, action, resource) when { context.broker.sensitivity <= 1 };
        @id("exact") permit (principal, action, resource)
          when { context.broker.sensitivity == 2 && context.attested.strength >= 3 };
        @id("strong") permit (principal, action, resource) when { context.attested.strength >= 5 };
        @id("unsure") forbid (principal, action, resource)
          when { context.broker.sensitivity >= 2 && context.claimed.confidence < 50 };
        @id("away") forbid (principal, action, resource)
          when { context.claimed has destination && !(context.claimed.destination like "house/*") };
        @id("tool") forbid (principal, action, resource)
          when { context.claimed has tool && context.claimed.tool == "shell" };
        @id("word") forbid (principal, action, resource) when { context.claimed.purpose like "*delete*" };
        """
    }
)
PERMITS = source.parse({"a": "\n".join(_text(policy.id) for policy in POLICIES.policies.values() if policy.permits)})
CLAIMS = st.fixed_dictionaries(
    {
        "confidence": st.integers(0, 100),
        "claimed_sensitivity": st.none() | st.sampled_from(Sensitivity),
        "tool": st.sampled_from([None, "sql", "shell"]),
        "destination": st.sampled_from([None, "house/mail", "mail/out"]),
    }
)


@settings(max_examples=200, deadline=None)
@given(CLAIMS, st.sampled_from(Sensitivity), st.sampled_from(["none", "own-uid", "tpm"]), st.text(max_size=8))
def test_no_claim_gives_what_facts_alone_do_not(
    claims: dict[str, Any], level: Sensitivity, strength: str, purpose: str
) -> None:
    """If the permits alone, knowing nothing the agent says, do not permit, then no claim does."""
    wide = scope("*", tools=patterns(["*"]), destinations=patterns(["*"]))
    chain = [task(scope=wide, purpose=purpose)]
    known = facts(role=role(sensitivity=level), strength=strength)
    silent = decide(PERMITS, caller(), [replace(chain[0], purpose="")], obtain(sensitivity=level), known, NOW)
    said = decide(POLICIES, caller(), chain, obtain(sensitivity=level, **claims), known, NOW)
    assert silent.permits or not said.permits


def test_claiming_more_harm_is_never_a_way_up() -> None:
    """`exact` permits what is `confidential` for certain, not what is only said to be."""
    internal = facts(role=role(sensitivity=Sensitivity.INTERNAL))
    only = source.parse({"a": _text("exact")})
    asked = obtain(confidence=100, claimed_sensitivity=Sensitivity.CONFIDENTIAL)
    assert not decide(only, caller(), [task()], asked, internal, NOW).permits
