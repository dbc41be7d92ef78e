"""The observer over the link to our attestor server: state from the link, strength from the last `bind`.

What the server was not heard of is `unobserved` and never `unknown`: it is there to tell, so silence is a reason to
give nothing new, and in time to end. An instance that ended is remembered beyond its last task, because its key and its
leaf may still be shown (traps 35).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from attestor.client.tasks import TaskLink
from attestor.wire.task import InstanceChange
from broker.model.ids import InstanceId
from broker.model.observed import Observation, Observed

_NO_STRENGTH = "none"

_MOST_REMEMBERED = 100_000
"""Instances that ended; the oldest are forgotten first, their leaves have long expired."""


class LinkObserver:
    """What the attestor server says of instances; everything it can't say is a reason to give nothing new."""

    def __init__(self, link: TaskLink, ended: Iterable[InstanceId] = ()) -> None:
        self.link = link
        self._strengths: dict[InstanceId, str] = {}
        self._ended = dict.fromkeys(ended)
        self._idle: set[InstanceId] = set()

    async def bind(self, instance: InstanceId) -> Observed:
        """Watch `instance` from now on. Raises Unavailable."""
        bound = await self.link.bind(instance)
        self._strengths[instance] = _NO_STRENGTH if bound.strength is None else str(bound.strength)
        return self._judged(instance, Observation(str(bound.state)))

    async def watch(self, instance: InstanceId) -> None:
        """Bind it, unless this process has done so. Raises Unavailable."""
        if instance not in self._strengths:
            await self.bind(instance)

    def observed(self, instance: InstanceId) -> Observed:
        """The newest word; `unobserved` while the link is down."""
        return self._judged(instance, Observation(str(self.link.state(instance))))

    def _judged(self, instance: InstanceId, state: Observation) -> Observed:
        if state is Observation.ENDED:
            self._remember(instance)
        elif instance in self._ended:
            state = Observation.ENDED  # final, whatever is said later
        elif state is Observation.UNKNOWN:
            state = Observation.UNOBSERVED
        return Observed(state=state, strength=self._strengths.get(instance, _NO_STRENGTH))

    def _remember(self, instance: InstanceId) -> None:
        self._ended[instance] = None
        while len(self._ended) > _MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    async def changes(self) -> AsyncIterator[InstanceChange]:
        """Each change of an instance, once."""
        async for change in self.link.changes():
            yield change

    async def hold(self, instances: Iterable[InstanceId]) -> None:
        """Bind again what this process has not bound yet (it was restarted), and forget what has no task any more.

        Who was just bound has no task yet: only what is idle twice in a row is forgotten. Raises Unavailable.
        """
        wanted = set(instances)
        idle = set(self._strengths) - wanted
        over = idle & self._idle
        self._idle = idle - over
        for instance in over:
            self.observed(instance)  # the last word, if it was an end, is kept
            del self._strengths[instance]
        self.link.forget(over)
        for instance in sorted(wanted - set(self._strengths)):
            await self.bind(instance)
