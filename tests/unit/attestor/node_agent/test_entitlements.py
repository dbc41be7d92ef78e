"""The server is asked once per kind of process and version of the rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from attestor.instance import Strength, new_id
from attestor.node_agent.entitlements import Entitlements
from attestor.selector import Selector
from attestor.wire.attestation import Attestation
from ca.errors import Unavailable
from fakes.clock import ManualClock
from fakes.issuer import FakeIssuer, identity
from fakes.pki import TestAuthority

CLOCK = ManualClock(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))


@pytest.fixture
def issuer() -> FakeIssuer:
    """Gives each user an identity of its own, and the user 0 none."""
    one = FakeIssuer(TestAuthority(now=CLOCK.now()), CLOCK)

    def given(attestation: Attestation) -> tuple[object, ...]:
        (selector,) = attestation.selectors
        uid = selector.value.removeprefix("uid:")
        return () if uid == "0" else (identity(one.authority.id(f"/u{uid}")),)

    one.given = given  # type: ignore[assignment]
    return one


def process(uid: int, strength: Strength = Strength.OWN_UID, ancestors: tuple[str, ...] = ()) -> Attestation:
    """Another process of this user."""
    selectors = frozenset({Selector("unix", f"uid:{uid}")})
    return Attestation(instance=new_id(), selectors=selectors, strength=strength, counter=1, ancestors=ancestors)


async def test_the_next_of_a_kind_costs_the_server_nothing(issuer: FakeIssuer) -> None:
    """Whether it gets something or not; each still gets what is its kind's."""
    entitlements = Entitlements(issuer)
    first = await entitlements.of([process(1), process(0)])
    again = await entitlements.of([process(0), process(2), process(1)])
    assert [[one.id.path for one in each] for each in first] == [["/u1"], []]
    assert [[one.id.path for one in each] for each in again] == [[], ["/u2"], ["/u1"]]
    assert len(issuer.resolved) == 3


async def test_another_strength_is_another_kind(issuer: FakeIssuer) -> None:
    """A rule may ask for one."""
    entitlements = Entitlements(issuer)
    await entitlements.of([process(1, Strength.SHARED_UID)])
    await entitlements.of([process(1, Strength.OWN_UID)])
    assert len(issuer.resolved) == 2


async def test_what_may_be_inherited_is_asked_each_time(issuer: FakeIssuer) -> None:
    """What an ancestor was given has no version."""
    entitlements = Entitlements(issuer)
    for _ in range(2):
        await entitlements.of([process(1, ancestors=(new_id(),))])
    assert len(issuer.resolved) == 2


async def test_other_rules_are_asked_again(issuer: FakeIssuer) -> None:
    """Nothing of the former version is answered."""
    entitlements = Entitlements(issuer)
    await entitlements.of([process(0)])
    issuer.rules_version = "2"
    issuer.given = lambda _: (identity(issuer.authority.id("/new")),)
    assert [one.id.path for one in (await entitlements.of([process(0)]))[0]] == ["/new"]


async def test_a_server_that_is_down_leaves_no_answer(issuer: FakeIssuer) -> None:
    """Not even the empty one."""
    entitlements = Entitlements(issuer)
    issuer.down = True
    with pytest.raises(Unavailable):
        await entitlements.of([process(1)])
    issuer.down = False
    assert await entitlements.of([process(1)]) != [()]


async def test_the_memory_is_bounded(issuer: FakeIssuer) -> None:
    """A caller that invents kinds drives out others, and no more."""
    entitlements = Entitlements(issuer, most=2)
    for uid in (1, 2, 3, 1):
        await entitlements.of([process(uid)])
    assert len(issuer.resolved) == 4
