"""A task's row as a value. One that can't be read gives a task that may do nothing, and can still be ended.

What hangs on a task must end with it whatever became of its row: so an unreadable scope is the empty one, an unreadable
owner nobody, an unknown state one in which nothing is given. `unreadable` says why, and the fence refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from broker.model.ids import InstanceId, TaskId
from broker.model.scope import Scope
from broker.model.task import EndReason, Task, TaskState
from broker.store.values import length_of, mapping_of, moment_of
from ca.errors import Problem
from ca.runtime.clock import instant
from ca.runtime.database import Row
from ca.spiffe.id import SpiffeId

T = TypeVar("T")
_BAD = (Problem, ValueError, KeyError, TypeError, AttributeError, OverflowError)
_NOBODY = SpiffeId.parse("spiffe://unreadable.invalid/nobody")


def task_of(row: Row) -> Task:
    """A row as a value; see the module."""
    try:
        return _task_of(row)
    except _BAD as error:
        return _broken(row, f"{type(error).__name__}: {error}"[:200])


def _task_of(row: Row) -> Task:
    return Task(
        id=TaskId(row["id"]),
        root=TaskId(row["root"]),
        parent=None if row["parent"] is None else TaskId(row["parent"]),
        state=TaskState(row["state"]),
        version=row["version"],
        owner=_owner(row["owner"]),
        instance=None if row["instance"] is None else InstanceId(row["instance"]),
        purpose=row["purpose"],
        scope=_scope(row["scope"]),
        opened_at=instant(row["opened_at"]),
        deadline=moment_of(row["deadline"]),
        heartbeat=length_of(row["heartbeat"]),
        heard_at=instant(row["heard_at"]),
        key=row["key"],
        ended_at=moment_of(row["ended_at"]),
        end_reason=None if row["end_reason"] is None else EndReason(row["end_reason"]),
        end_words=row["end_words"],
    )


def _broken(row: Row, why: str) -> Task:
    ended = row["ended_at"] is not None
    begun: datetime = _or(lambda: instant(row["opened_at"]), instant(0))
    return Task(
        id=TaskId(row["id"]),
        root=TaskId(row["root"]),
        parent=None if row["parent"] is None else TaskId(row["parent"]),
        state=_or(lambda: TaskState(row["state"]), TaskState.FAILED if ended else TaskState.WAITING),
        version=_or(lambda: int(row["version"]), 0),
        owner=_or(lambda: _owner(row["owner"]), _NOBODY),
        instance=None if row["instance"] is None else InstanceId(str(row["instance"])),
        purpose=str(row["purpose"]),
        scope=_or(lambda: _scope(row["scope"]), Scope()),
        opened_at=begun,
        deadline=_or(lambda: moment_of(row["deadline"]), begun),
        heartbeat=_or(lambda: length_of(row["heartbeat"]), None),
        heard_at=_or(lambda: instant(row["heard_at"]), begun),
        key=_or(lambda: row["key"], None),
        ended_at=_or(lambda: moment_of(row["ended_at"]), begun),
        end_reason=_or(lambda: _reason(row["end_reason"]), None),
        end_words=_or(lambda: row["end_words"], None),
        unreadable=why,
    )


def _reason(text: str | None) -> EndReason | None:
    return None if text is None else EndReason(text)


def _or(value: Callable[[], T], otherwise: Any) -> T:
    try:
        return value()
    except _BAD:
        found: T = otherwise
        return found


@lru_cache(1024)
def _owner(text: str) -> SpiffeId:
    """Every fence reads its chain of tasks; the same text is the same immutable value."""
    return SpiffeId.parse(text)


@lru_cache(1024)
def _scope(text: str) -> Scope:
    return Scope.from_json(mapping_of(text))
