"""Decisions, permits, acts."""

from __future__ import annotations

import pytest

from broker.errors import Refused
from broker.model.decision import Decision, Effect, Permit
from broker.model.ids import new_decision
from broker.model.scope import Sensitivity
from fakes.nouns import NOW, caller, obtain, task


def _decision(effect: Effect) -> Decision:
    return Decision(
        id=new_decision(NOW), effect=effect, policies=("a", "b"), reason="because", policy_version="v", decided_at=NOW
    )


def test_only_a_permitting_decision_becomes_a_permit() -> None:
    """A denial is refused with its reason, its policies and its id; nobody makes a permit by hand."""
    permit = Permit.of(caller(), task(), obtain(), _decision(Effect.PERMIT))
    assert permit.decision.permits
    denied = _decision(Effect.DENY)
    with pytest.raises(Refused, match="because") as raised:
        Permit.of(caller(), task(), obtain(), denied)
    assert raised.value.details == {"policies": "a, b", "decision": denied.id}
    with pytest.raises(RuntimeError):
        Permit(object(), caller(), task(), obtain(), denied)


def test_the_higher_sensitivity_counts() -> None:
    """An agent may admit to more, never to less."""
    known = obtain(sensitivity=Sensitivity.CONFIDENTIAL)
    assert known.effective_sensitivity is Sensitivity.CONFIDENTIAL
    lower = obtain(sensitivity=Sensitivity.CONFIDENTIAL, claimed_sensitivity=Sensitivity.PUBLIC)
    assert lower.effective_sensitivity is Sensitivity.CONFIDENTIAL
    higher = obtain(sensitivity=Sensitivity.CONFIDENTIAL, claimed_sensitivity=Sensitivity.RESTRICTED)
    assert higher.effective_sensitivity is Sensitivity.RESTRICTED
