"""Bodies of /v1/tasks: open, beat, change of state, end; a task as told."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, WithJsonSchema, model_validator

from broker.model.scope import Budget, Scope, Sensitivity, patterns
from broker.model.task import EndReason, Task, TaskEvent, TaskState
from broker.wire import body
from broker.wire.body import (
    Asked,
    Identity,
    LeaseName,
    Length,
    Level,
    Moment,
    Page,
    Prefix,
    Stamp,
    TaskName,
    Told,
    fault,
)

_PREFIXES = Annotated[list[Prefix], Field(max_length=256)]
_COUNT = Annotated[int, Field(ge=0, le=1_000_000_000)]


class BudgetBody(Asked):
    """How much may be used; absent means: what the task above still has."""

    secrets: _COUNT | None = None
    decisions: _COUNT | None = None


class ScopeBody(Asked):
    """What a task may reach; what is absent reaches nothing."""

    roles: _PREFIXES = Field(default_factory=list)
    tools: _PREFIXES = Field(default_factory=list)
    destinations: _PREFIXES = Field(default_factory=list)
    sensitivity: Level = Sensitivity.PUBLIC
    budget: BudgetBody = BudgetBody()

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """The body of `scope`."""
        return cls(
            roles=sorted(map(str, scope.roles)),
            tools=sorted(map(str, scope.tools)),
            destinations=sorted(map(str, scope.destinations)),
            sensitivity=scope.sensitivity,
            budget=BudgetBody(secrets=scope.budget.secrets, decisions=scope.budget.decisions),
        )

    def to_scope(self) -> Scope:
        """The value."""
        return Scope(
            roles=patterns(self.roles),
            tools=patterns(self.tools),
            destinations=patterns(self.destinations),
            sensitivity=self.sensitivity,
            budget=Budget(secrets=self.budget.secrets, decisions=self.budget.decisions),
        )


def _coordinate(text: str) -> str:
    """One spelling per key: otherwise one key would have several thumbprints."""
    try:
        number = base64.urlsafe_b64decode(text + "=")
    except ValueError:
        number = b""
    if len(number) != 32 or base64.urlsafe_b64encode(number).rstrip(b"=").decode() != text:
        raise fault("expected 32 bytes in base64url without padding")
    return text


_COORDINATE = Annotated[str, StringConstraints(min_length=43, max_length=43), AfterValidator(_coordinate)]


class PublicKey(Asked):
    """A P-256 key in JWK form with which a task is proven later. A private key is refused, not stored."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: _COORDINATE
    y: _COORDINATE

    @property
    def thumbprint(self) -> str:
        """Its RFC 7638 thumbprint, the form a task keeps."""
        members = json.dumps({"crv": self.crv, "kty": self.kty, "x": self.x, "y": self.y}, separators=(",", ":"))
        return base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()


class OpenTask(Asked):
    """Open a task.

    `deadline` is a moment, or `lasts` a length of time from now. `bind` ties it to the caller's process, whose end ends
    it; without that it needs an end of its own and a `key`. `heartbeat` is how often it promises to be heard of.
    """

    purpose: Annotated[body.Line, Field(min_length=1)]
    scope: ScopeBody = ScopeBody()
    deadline: Moment | None = None
    lasts: Length | None = None
    heartbeat: Length | None = None
    parent: TaskName | None = None
    bind: bool = True
    key: PublicKey | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.deadline is not None and self.lasts is not None:
            raise fault("expected `deadline` or `lasts`, not both")
        if any(length is not None and length.total_seconds() <= 0 for length in (self.lasts, self.heartbeat)):
            raise fault("`lasts` and `heartbeat` are longer than nothing")
        if not self.bind and (self.key is None or (self.deadline is None and self.lasts is None)):
            raise fault("a task that is bound to no process needs a `key` to prove it with, and `deadline` or `lasts`")
        return self

    def ends_at(self, now: datetime) -> datetime | None:
        """When it is to end by itself."""
        return now + self.lasts if self.lasts is not None else self.deadline


class Heartbeat(Asked):
    """The task lives, and its process holds the secrets of these leases: that acknowledges them."""

    leases: Annotated[list[LeaseName], Field(max_length=1000, default_factory=list)]


_MOVES = {str(event): event for event in (TaskEvent.START, TaskEvent.WAIT, TaskEvent.RESUME, TaskEvent.NARROW)}


def _move(value: object) -> TaskEvent:
    found = _MOVES.get(value) if isinstance(value, str) else None
    if found is None:
        raise fault(f"expected one of `{'`, `'.join(_MOVES)}`")
    return found


_MOVE = Annotated[TaskEvent, PlainValidator(_move), WithJsonSchema({"type": "string", "enum": list(_MOVES)})]


class StateChange(Asked):
    """Wait, go on, or narrow the scope; narrowing can't be undone."""

    event: _MOVE
    scope: ScopeBody | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.scope is not None) != (self.event is TaskEvent.NARROW):
            raise fault("`scope` goes with `narrow`, and only with it")
        return self


_OUTCOMES = {"done": TaskEvent.FINISH, "failed": TaskEvent.FAIL, "cancelled": TaskEvent.CANCEL}


class EndTask(Asked):
    """End the task: everything it was given is taken back. `words` go into the report."""

    outcome: Literal["done", "failed", "cancelled"] = "done"
    words: body.Line | None = None

    @property
    def event(self) -> TaskEvent:
        """The event of the task's table."""
        return _OUTCOMES[self.outcome]


class TaskTold(Told):
    """A task as it stood at `version`."""

    id: TaskName
    root: TaskName
    parent: TaskName | None = None
    state: Annotated[TaskState, Field(strict=False)]
    version: int
    owner: Identity
    bound: bool
    purpose: str
    scope: ScopeBody
    opened_at: Moment
    deadline: Moment | None = None
    heartbeat: Length | None = None
    heard_at: Moment
    ended_at: Moment | None = None
    end_reason: Annotated[EndReason, Field(strict=False)] | None = None
    end_words: str | None = None

    @classmethod
    def of(cls, task: Task) -> Self:
        """What may be told of `task`."""
        return cls(
            id=task.id,
            root=task.root,
            parent=task.parent,
            state=task.state,
            version=task.version,
            owner=task.owner,
            bound=task.instance is not None,
            purpose=task.purpose,
            scope=ScopeBody.of(task.scope),
            opened_at=task.opened_at,
            deadline=task.deadline,
            heartbeat=task.heartbeat,
            heard_at=task.heard_at,
            ended_at=task.ended_at,
            end_reason=task.end_reason,
            end_words=task.end_words,
        )


class TaskOpened(Told):
    """The answer to opening: the task, and who decided."""

    task: TaskTold
    decision: Stamp
    policies: list[Stamp]
    reason: str


class TaskPage(Page[TaskTold]):
    """Tasks, newest first."""


class TaskTree(Told):
    """A task and every task below it, each parent before its children."""

    tasks: list[TaskTold]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Self:
        """The tree of `tasks`."""
        return cls(tasks=[TaskTold.of(task) for task in tasks])


class Beat(Told):
    """The answer to a heartbeat: where the task stands, and when the next beat is expected at the latest."""

    state: Annotated[TaskState, Field(strict=False)]
    version: int
    next_by: Moment | None = None
    acknowledged: list[LeaseName]
