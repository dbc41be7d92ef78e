"""The observer over the link: silence is never good news, and an end is final."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from attestor.instance import State, Strength
from attestor.wire.task import Bound
from broker.model.ids import InstanceId
from broker.model.observed import Observation
from broker.service.observing import LinkObserver
from ca.errors import Unavailable

ONE, TWO = InstanceId("1" * 32), InstanceId("2" * 32)


class Link:
    """What the link would say, in the hand of the test."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.bound: list[str] = []
        self.down = False

    async def bind(self, instance: str) -> Bound:
        if self.down:
            raise Unavailable("nobody answers")
        self.bound.append(instance)
        state = self.states.setdefault(instance, State.LIVE)
        return Bound(state=state, strength=Strength.OWN_UID)

    def state(self, instance: str) -> State:
        return self.states.get(instance, State.UNKNOWN)

    def forget(self, instances: Iterable[str]) -> None:
        for instance in instances:
            self.states.pop(instance, None)


@pytest.fixture
def link() -> Link:
    """One that answers."""
    return Link()


def observer(link: Any, *ended: InstanceId) -> LinkObserver:
    """Over it."""
    return LinkObserver(link, ended)


async def test_what_was_bound_is_seen_with_its_strength(link: Link) -> None:
    """State from the link, strength from the binding."""
    seen = observer(link)
    assert (await seen.bind(ONE)).state is Observation.LIVE
    assert (seen.observed(ONE).state, seen.observed(ONE).strength) == (Observation.LIVE, "own-uid")
    link.states[ONE] = State.UNOBSERVED
    assert seen.observed(ONE).state is Observation.UNOBSERVED


async def test_what_nobody_told_of_is_unobserved(link: Link) -> None:
    """Not unknown, which would be neither given up nor ended."""
    assert observer(link).observed(ONE).state is Observation.UNOBSERVED
    link.states[ONE] = State.UNKNOWN
    assert (await observer(link).bind(ONE)).state is Observation.UNOBSERVED


async def test_an_end_outlives_the_last_task(link: Link) -> None:
    """The link forgets an instance without a task; its key is still nobody's."""
    seen = observer(link)
    await seen.bind(ONE)
    link.states[ONE] = State.ENDED
    for _ in range(3):
        await seen.hold([])
    assert link.state(ONE) is State.UNKNOWN
    assert seen.observed(ONE).state is Observation.ENDED
    link.states[ONE] = State.LIVE
    assert (await seen.bind(ONE)).state is Observation.ENDED


def test_an_end_outlives_a_restart(link: Link) -> None:
    """The store knew of it."""
    assert observer(link, ONE).observed(ONE).state is Observation.ENDED
    assert observer(link, ONE).observed(TWO).state is Observation.UNOBSERVED


async def test_who_was_just_bound_is_not_forgotten(link: Link) -> None:
    """Its task is being written at this moment: one look that misses it is not enough."""
    seen = observer(link)
    await seen.hold([TWO])
    await seen.bind(ONE)
    await seen.hold([TWO])
    assert seen.observed(ONE).state is Observation.LIVE
    await seen.hold([ONE, TWO])
    await seen.hold([TWO])
    assert seen.observed(ONE).state is Observation.LIVE
    await seen.hold([TWO])
    assert seen.observed(ONE).state is Observation.UNOBSERVED


async def test_after_a_restart_live_instances_are_bound_again(link: Link) -> None:
    """As soon as the server answers; until then they are unobserved."""
    seen = observer(link)
    link.down = True
    with pytest.raises(Unavailable):
        await seen.hold([ONE, TWO])
    assert seen.observed(ONE).state is Observation.UNOBSERVED
    link.down = False
    await seen.hold([ONE, TWO])
    assert link.bound == [ONE, TWO]
    assert seen.observed(ONE).strength == "own-uid"
