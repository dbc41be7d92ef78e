"""What the identity side says of an instance, as the broker last heard it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.model.ids import InstanceId


class Observation(StrEnum):
    """Whether the process behind an instance is seen to live."""

    LIVE = "live"
    UNOBSERVED = "unobserved"  # its node is silent: nothing new, no renewal (traps 3)
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One instance's state, and what its attestation is worth (`shared-uid`, `own-uid`, …)."""

    state: Observation
    strength: str


class Observer(Protocol):
    """Whoever can tell about instances: the attestor server through its task API, or nobody."""

    async def bind(self, instance: InstanceId) -> Observed:
        """Say that `instance` opened a task, so that its end is told; answers its state now. Raises Unavailable."""

    async def watch(self, instance: InstanceId) -> None:
        """Hear of `instance` from now on, if that is not so already. Raises Unavailable."""

    def observed(self, instance: InstanceId) -> Observed:
        """The newest word about `instance`; `unknown` when there is none."""


class Unobserving:
    """The observer of a broker on an issuer that names no instances: tasks live by heartbeat and deadline."""

    async def bind(self, instance: InstanceId) -> Observed:  # noqa: ARG002 - the protocol's shape
        """Nothing is known of any instance."""
        return Observed(state=Observation.UNKNOWN, strength="none")

    async def watch(self, instance: InstanceId) -> None:
        """There is nobody to hear it from."""

    def observed(self, instance: InstanceId) -> Observed:  # noqa: ARG002 - the protocol's shape
        """Nothing is known of any instance."""
        return Observed(state=Observation.UNKNOWN, strength="none")
