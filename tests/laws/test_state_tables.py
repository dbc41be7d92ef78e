"""Law: ended is final, closed is closed, and no move gives back what another took.

The arrows are written here a second time, by hand, from the drawings in the design; a change of a table is a change of
this page as well.
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.errors import NotPossible
from broker.model import lease, task
from broker.model.lease import CLOSED, LeaseEvent, LeaseState
from broker.model.task import ENDING_EVENT, LIVE, USABLE, EndReason, TaskEvent, TaskState

TASK_ARROWS = """
    proposed start active       proposed narrow proposed
    active wait waiting         active narrow active
    waiting resume active       waiting narrow waiting
    proposed finish done        active finish done          waiting finish done
    proposed fail failed        active fail failed          waiting fail failed
    proposed cancel cancelled   active cancel cancelled     waiting cancel cancelled
    proposed expire expired     active expire expired       waiting expire expired
"""
LEASE_ARROWS = """
    intended activated active   intended lost in_doubt      intended abandoned revoking
    active reissued active      active acknowledged active  active renewed active       active revoke revoking
    in_doubt occupied revoking  in_doubt refused in_doubt
    revoking refused revoking   revoking gone revoked       revoking ran_out expired
    in_doubt disowned disowned  revoking disowned disowned
"""


def _arrows(text: str) -> set[tuple[str, str, str]]:
    words = text.split()
    return {(words[place], words[place + 1], words[place + 2]) for place in range(0, len(words), 3)}


def test_the_tables_have_these_arrows_and_no_other() -> None:
    """Every state stands in its table, every pair that isn't drawn is refused."""
    for arrows, states, events, after in (
        (_arrows(TASK_ARROWS), TaskState, TaskEvent, task.after),
        (_arrows(LEASE_ARROWS), LeaseState, LeaseEvent, lease.after),
    ):
        found = set()
        for state, event in product(states, events):
            try:
                found.add((str(state), str(event), str(after(state, event))))  # type: ignore[arg-type] # both tables
            except NotPossible:
                continue
        assert found == arrows
    assert set(task.TRANSITIONS) == set(TaskState)
    assert set(lease.TRANSITIONS) == set(LeaseState)


def test_what_is_over_is_over() -> None:
    """No event moves an ended task or a closed lease."""
    assert set(TaskState) - LIVE == {TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED}
    assert {LeaseState.REVOKED, LeaseState.EXPIRED, LeaseState.DISOWNED} == CLOSED
    assert USABLE < LIVE
    for ended, event in product(set(TaskState) - LIVE, TaskEvent):
        with pytest.raises(NotPossible):
            task.after(ended, event)
    for closed, happened in product(CLOSED, LeaseEvent):
        with pytest.raises(NotPossible):
            lease.after(closed, happened)


def test_from_every_state_there_is_a_way_to_its_end() -> None:
    """Nothing can hang: each live task can end at once, each lease can be closed."""
    for state, reason in product(LIVE, EndReason):
        assert task.after(state, ENDING_EVENT[reason]) not in LIVE
    for start in LeaseState:
        reached: set[LeaseState] = {start}
        for _ in LeaseState:
            reached |= {following for one in reached for following in lease.TRANSITIONS[one].values()}
        assert reached & CLOSED


def test_narrowing_is_no_state() -> None:
    """It stays where it is, so no later move can undo it (traps 22)."""
    assert all(task.after(state, TaskEvent.NARROW) is state for state in LIVE)


class TaskLife(RuleBasedStateMachine):
    """Any events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = TaskState.PROPOSED
        self.ended: TaskState | None = None

    @rule(event=st.sampled_from(TaskEvent))
    def happen(self, event: TaskEvent) -> None:
        try:
            self.state = task.after(self.state, event)
        except NotPossible:
            return
        if self.state not in LIVE and self.ended is None:
            self.ended = self.state

    @invariant()
    def ended_is_final(self) -> None:
        assert self.ended is None or self.state is self.ended

    @invariant()
    def only_live_tasks_are_usable(self) -> None:
        assert self.state not in USABLE or self.state in LIVE


class LeaseLife(RuleBasedStateMachine):
    """Any events in any order: access that began to end never comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.state = LeaseState.INTENDED
        self.past: list[LeaseState] = [self.state]

    @rule(event=st.sampled_from(LeaseEvent))
    def happen(self, event: LeaseEvent) -> None:
        try:
            self.state = lease.after(self.state, event)
        except NotPossible:
            return
        self.past.append(self.state)

    @invariant()
    def ending_is_a_one_way_road(self) -> None:
        ending = {LeaseState.IN_DOUBT, LeaseState.REVOKING, *CLOSED}
        began = next((place for place, state in enumerate(self.past) if state in ending), len(self.past))
        assert all(state in ending for state in self.past[began:])

    @invariant()
    def verified_gone_only_after_revoking(self) -> None:
        for before, now in zip(self.past, self.past[1:], strict=False):
            assert now not in CLOSED - {LeaseState.DISOWNED} or before is LeaseState.REVOKING

    @invariant()
    def nothing_is_active_that_was_not_intended(self) -> None:
        assert self.past[0] is LeaseState.INTENDED


TestTaskLife = TaskLife.TestCase
TestLeaseLife = LeaseLife.TestCase
