"""A task by itself, and in its chain."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import NotPossible
from broker.model.scope import Budget, Sensitivity, patterns
from broker.model.task import ENDING_EVENT, LIVE, EndReason, TaskEvent, TaskState, after, effective_scope, is_chain
from fakes.nouns import NOW, scope, task


def test_deadline_and_silence() -> None:
    """A deadline is past when it is reached; three missed beats are silence; without either a task is never late."""
    one = task(deadline=NOW, heartbeat=timedelta(seconds=10), heard_at=NOW)
    assert one.is_past_deadline(NOW)
    assert not one.is_past_deadline(NOW - timedelta(microseconds=1))
    assert not one.is_silent(NOW + timedelta(seconds=29))
    assert one.is_silent(NOW + timedelta(seconds=30))
    endless = task(deadline=None, heartbeat=None)
    assert not endless.is_past_deadline(NOW + timedelta(days=9))
    assert not endless.is_silent(NOW + timedelta(days=9))


def test_a_move_that_is_not_there_says_which() -> None:
    """The error names state and event."""
    with pytest.raises(NotPossible, match="a task that is `done` can't `start`") as raised:
        after(TaskState.DONE, TaskEvent.START)
    assert raised.value.details == {"state": "done", "event": "start"}


def test_every_reason_ends_a_live_task() -> None:
    """Whatever ends a task, the table has the move from each live state."""
    for reason in EndReason:
        for state in LIVE:
            assert after(state, ENDING_EVENT[reason]) not in LIVE


def test_a_chain_is_whole_or_none() -> None:
    """Root first, each the parent of the next, all of one root."""
    root = task()
    child = task(root)
    grandchild = task(child)
    assert is_chain([root, child, grandchild])
    for broken in ([], [child], [root, grandchild], [child, root], [root, task(child, root=child.id)]):
        assert not is_chain(broken)
    with pytest.raises(RuntimeError):
        effective_scope([root, grandchild])


def test_the_scope_of_a_chain_is_the_meet_of_all() -> None:
    """Narrowing a task reaches everything below it, whatever the ones below were given."""
    root = task(scope=scope("orders/*", tools=patterns(["sql"]), sensitivity=Sensitivity.INTERNAL))
    child = task(root, scope=scope("*", budget=Budget(secrets=3)))
    grandchild = task(child, scope=scope("orders/a", "other/b", tools=patterns(["*"])))
    reached = effective_scope([root, child, grandchild])
    assert reached.roles == patterns(["orders/a"])
    assert reached.tools == frozenset()
    assert reached.sensitivity is Sensitivity.INTERNAL
    assert reached.budget == Budget(secrets=3)
