"""Bodies of /v1/events and /v1/epochs: one line of the stream, a new beginning, and what a point has applied."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import LeaseId, TaskId
from broker.wire.body import Asked, LeaseName, Moment, Page, Stamp, TaskName, Told


class EventLine(Told):
    """One event; `epoch` is the cursor to go on from."""

    epoch: Stamp
    kind: Annotated[EventKind, Field(strict=False)]
    at: Moment
    task: TaskName
    root: TaskName
    lease: LeaseName | None = None
    body: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> Self:
        """The body of a written event.

        Raises:
            RuntimeError: it has no epoch yet; only what is durable is told.
        """
        if event.epoch is None:
            raise RuntimeError("an event is told once it is written")
        return cls(
            epoch=str(event.epoch),
            kind=event.kind,
            at=event.at,
            task=event.task,
            root=event.root,
            lease=event.lease,
            body=dict(event.body),
        )

    def to_event(self) -> Event:
        """The value. Raises Malformed: `epoch` is no cursor."""
        return Event(
            kind=self.kind,
            at=self.at,
            task=TaskId(self.task),
            root=TaskId(self.root),
            lease=None if self.lease is None else LeaseId(self.lease),
            body=self.body,
            epoch=Epoch.parse(self.epoch),
        )


class EventPage(Page[EventLine]):
    """Events in the order in which they were committed."""


class Resync(Told):
    """The cursor can't be gone on from: read a snapshot, then go on from `epoch`."""

    epoch: Stamp
    reason: Literal["restored", "too-old", "slow", "unknown"]


class Confirm(Asked):
    """An enforcement point's claim that it has applied everything up to this epoch."""

    incarnation: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,40}$")]
    n: Annotated[int, Field(ge=0, le=(1 << 53) - 1)]

    @property
    def epoch(self) -> Epoch:
        """The value."""
        return Epoch(self.incarnation, self.n)


class Confirmed(Told):
    """What is held of a point: the newest epoch it claimed, and the newest there is."""

    point: str
    epoch: Stamp
    newest: Stamp
    at: Moment
