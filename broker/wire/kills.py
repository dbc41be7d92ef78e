"""Bodies of /v1/kills: what is to die, and what would die or did."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from broker.model.ids import parse_instance
from broker.model.kill import Doomed, Kill, Killed, Reach
from broker.model.task import Task
from broker.wire.body import Asked, Domain, Identity, Line, TaskName, Told, fault
from ca.errors import Malformed


def _instance(text: str) -> str:
    try:
        return parse_instance(text)
    except Malformed as error:
        raise fault(str(error)) from None


class AskKill(Asked):
    """One of the first six says what dies; with `dry_run` nothing does, and the answer lists what would.

    `path` is a SPIFFE ID: that identity and every one below it, segment by segment. `most` bounds how many tasks one
    request names; `left` in the answer says whether to ask again.
    """

    task: TaskName | None = None
    tree: TaskName | None = None
    agent: Identity | None = None
    path: Identity | None = None
    trust_domain: Domain | None = None
    instance: Annotated[str, StringConstraints(max_length=40), AfterValidator(_instance)] | None = None
    words: Line | None = None
    dry_run: bool = False
    most: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self._named()) != 1:
            raise fault(f"expected exactly one of `{'`, `'.join(Reach)}`")
        return self

    def _named(self) -> list[tuple[Reach, str]]:
        said = ((reach, getattr(self, reach)) for reach in Reach)
        return [(reach, str(name)) for reach, name in said if name is not None]

    def to_kill(self) -> Kill:
        """The value."""
        ((reach, name),) = self._named()
        return Kill(reach=reach, name=name)


class DoomedTask(Told):
    """A task that would die, or that was there when the kill began."""

    id: TaskName
    owner: Identity
    purpose: str
    parent: TaskName | None = None

    @classmethod
    def of(cls, task: Task) -> Self:
        """The body of `task`."""
        return cls(id=task.id, owner=task.owner, purpose=task.purpose, parent=task.parent)


class KillTold(Told):
    """What a kill reaches, the first thousand tasks by name; and what it ended, which is nothing in a dry run.

    `leases` counts what may be outside by target, `identities` the tasks' own. `left` is how many tasks that were
    there when it was asked for still live.
    """

    dry_run: bool
    tasks: int
    listed: Annotated[list[DoomedTask], Field(max_length=1000)]
    leases: dict[str, int]
    identities: int
    ended: int
    left: int

    @classmethod
    def of(cls, seen: Doomed, killed: Killed | None) -> Self:
        """The body of a dry run, or of what was done."""
        return cls(
            dry_run=killed is None,
            tasks=seen.tasks,
            listed=[DoomedTask.of(task) for task in seen.first],
            leases=dict(seen.leases),
            identities=seen.identities,
            ended=0 if killed is None else len(killed.ended),
            left=seen.tasks if killed is None else killed.left,
        )
