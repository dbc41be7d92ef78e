"""The observer over the link to our attestor server: state from the link, strength from the last `bind`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from attestor.client.tasks import TaskLink
from attestor.wire.task import InstanceChange
from broker.model.ids import InstanceId
from broker.model.observed import Observation, Observed

_NO_STRENGTH = "none"


class LinkObserver:
    """What the attestor server says of instances; everything it can't say is a reason to give nothing new."""

    def __init__(self, link: TaskLink) -> None:
        self._link = link
        self._strengths: dict[InstanceId, str] = {}

    async def bind(self, instance: InstanceId) -> Observed:
        """Watch `instance` from now on. Raises Unavailable."""
        bound = await self._link.bind(instance)
        self._strengths[instance] = _NO_STRENGTH if bound.strength is None else str(bound.strength)
        return Observed(state=Observation(str(bound.state)), strength=self._strengths[instance])

    def observed(self, instance: InstanceId) -> Observed:
        """The newest word; `unobserved` while the link is down."""
        state = Observation(str(self._link.state(instance)))
        return Observed(state=state, strength=self._strengths.get(instance, _NO_STRENGTH))

    async def changes(self) -> AsyncIterator[InstanceChange]:
        """Each change of an instance, once."""
        async for change in self._link.changes():
            yield change

    async def hold(self, instances: Iterable[InstanceId]) -> None:
        """Bind again what this process has not bound yet (it was restarted), and forget the rest."""
        wanted = set(instances)
        for instance in wanted - set(self._strengths):
            await self.bind(instance)
        over = set(self._strengths) - wanted
        self._link.forget(over)
        for instance in over:
            del self._strengths[instance]
