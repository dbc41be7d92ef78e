"""A task: one piece of work, the unit of authority.

    proposed ──▶ active ⇄ waiting          any live state ──▶ done | failed | cancelled | expired

Ended is final. Narrowing is an event: it raises the version and stays in its state. Whoever wants to add authority to a
task shows the version it decided on (DESIGN 5, fence); ending raises the version too, so nothing decided before can be
used after. Liveness is derived: a task lives only while it and every task above it lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from broker.errors import NotPossible
from broker.model.ids import InstanceId, TaskId
from broker.model.scope import Scope
from ca.spiffe.id import SpiffeId


class TaskState(StrEnum):
    """Where a task stands."""

    PROPOSED = "proposed"
    ACTIVE = "active"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class TaskEvent(StrEnum):
    """What may happen to a task."""

    START = "start"
    WAIT = "wait"
    RESUME = "resume"
    NARROW = "narrow"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"


_ENDINGS = {
    TaskEvent.FINISH: TaskState.DONE,
    TaskEvent.FAIL: TaskState.FAILED,
    TaskEvent.CANCEL: TaskState.CANCELLED,
    TaskEvent.EXPIRE: TaskState.EXPIRED,
}

TRANSITIONS: Mapping[TaskState, Mapping[TaskEvent, TaskState]] = {
    TaskState.PROPOSED: {TaskEvent.START: TaskState.ACTIVE, TaskEvent.NARROW: TaskState.PROPOSED, **_ENDINGS},
    TaskState.ACTIVE: {TaskEvent.WAIT: TaskState.WAITING, TaskEvent.NARROW: TaskState.ACTIVE, **_ENDINGS},
    TaskState.WAITING: {TaskEvent.RESUME: TaskState.ACTIVE, TaskEvent.NARROW: TaskState.WAITING, **_ENDINGS},
    TaskState.DONE: {},
    TaskState.FAILED: {},
    TaskState.CANCELLED: {},
    TaskState.EXPIRED: {},
}

LIVE = frozenset(state for state, moves in TRANSITIONS.items() if moves)
"""The states in which a task has authority at all."""

USABLE = frozenset({TaskState.ACTIVE})
"""The states in which a task may be given something new."""


class EndReason(StrEnum):
    """Why a task ended; events, receipts and the closing report carry it."""

    SAID_SO = "said-so"
    DEADLINE = "deadline"
    SILENT = "silent"
    PROCESS_ENDED = "process-ended"
    NODE_SILENT = "node-silent"
    PARENT_ENDED = "parent-ended"
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"


ENDING_EVENT: Mapping[EndReason, TaskEvent] = {
    EndReason.SAID_SO: TaskEvent.FINISH,
    EndReason.DEADLINE: TaskEvent.EXPIRE,
    EndReason.SILENT: TaskEvent.EXPIRE,
    EndReason.PROCESS_ENDED: TaskEvent.FAIL,
    EndReason.NODE_SILENT: TaskEvent.FAIL,
    EndReason.PARENT_ENDED: TaskEvent.CANCEL,
    EndReason.OPERATOR: TaskEvent.CANCEL,
    EndReason.SHUTDOWN: TaskEvent.CANCEL,
}
"""How an ending that was not said by the task itself is entered in the table."""


def after(state: TaskState, event: TaskEvent) -> TaskState:
    """The state that follows.

    Raises:
        NotPossible: the table has no such move.
    """
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise NotPossible(f"a task that is `{state}` can't `{event}`", state=state, event=event)
    return following


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it stood at one version.

    `instance` binds it to one attested process: its end ends the task. Without one a deadline is required.
    `heartbeat` is how often it must be heard of; None when an instance vouches for it and no beat was asked for.
    `unreadable` says why its row could not be read as a whole: it may do nothing then, and can only be ended.
    `key` is the RFC 7638 thumbprint of a key the opener registered to prove the task with.
    """

    id: TaskId
    root: TaskId
    parent: TaskId | None
    state: TaskState
    version: int
    owner: SpiffeId
    instance: InstanceId | None
    purpose: str
    scope: Scope
    opened_at: datetime
    deadline: datetime | None
    heartbeat: timedelta | None
    heard_at: datetime
    key: str | None = None
    ended_at: datetime | None = None
    end_reason: EndReason | None = None
    end_words: str | None = None
    unreadable: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    def is_past_deadline(self, now: datetime) -> bool:
        """Whether its time is up."""
        return self.deadline is not None and now >= self.deadline

    def is_silent(self, now: datetime) -> bool:
        """Whether it missed three beats."""
        return self.heartbeat is not None and now >= self.heard_at + 3 * self.heartbeat


def is_chain(tasks: Sequence[Task]) -> bool:
    """Whether `tasks` is a whole chain: a root, then a child of each before it."""
    if not tasks or tasks[0].parent is not None or tasks[0].root != tasks[0].id:
        return False
    return all(below.parent == above.id and below.root == tasks[0].id for above, below in pairwise(tasks))


def effective_scope(chain: Sequence[Task]) -> Scope:
    """What the last task of `chain` (root first) may reach: the meet of every scope above it (law 6).

    Computed at each use, so narrowing a task reaches everything below it at once.
    """
    if not is_chain(chain):
        raise RuntimeError("effective_scope takes a whole chain, root first")
    scope = chain[0].scope
    for task in chain[1:]:
        scope = scope.meet(task.scope)
    return scope
