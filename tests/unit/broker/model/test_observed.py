"""Instances nobody tells of."""

from __future__ import annotations

from broker.model.observed import Observation, Observed, Unobserving
from fakes.nouns import INSTANCE


async def test_who_hears_of_no_instance_says_so() -> None:
    """`unknown`, and an attestation that is worth nothing: no policy that asks for a strength is met by it."""
    nobody = Unobserving()
    await nobody.watch(INSTANCE)
    unknown = Observed(state=Observation.UNKNOWN, strength="none")
    assert (await nobody.bind(INSTANCE), nobody.observed(INSTANCE)) == (unknown, unknown)
