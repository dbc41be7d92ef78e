"""Messages between broker and server, there and back."""

from __future__ import annotations

import pytest

from attestor._proto import task_pb2 as pb
from attestor.instance import State, Strength, new_id
from attestor.wire import task
from ca.errors import Malformed

ONE = new_id()
CHANGE = task.InstanceChange(instance=ONE, state=State.ENDED, reason="gone", cursor=9)


@pytest.mark.parametrize("step", [task.Snapshot(cursor=9, changes=(CHANGE,)), CHANGE, task.Beat(cursor=9)])
def test_what_is_watched_survives_the_wire(step: task.Watched) -> None:
    """Snapshot, change and beat."""
    assert task.decode_watched(task.encode_watched(step)) == step


@pytest.mark.parametrize(
    "bound",
    [task.Bound(state=State.LIVE, strength=Strength.POD), task.Bound(state=State.UNKNOWN, strength=None)],
)
def test_a_binding_survives_the_wire(bound: task.Bound) -> None:
    """With and without a strength."""
    assert task.decode_bound(task.encode_bound(bound)) == bound
    assert task.decode_bind(task.encode_bind(ONE)) == ONE


def test_what_is_no_instance_is_refused() -> None:
    """An id has 32 hex digits; a step has a meaning."""
    for text in ("", "x", ONE.upper() + "A", ONE + "0"):
        with pytest.raises(Malformed):
            task.decode_bind(pb.BindRequest(instance=text))
    with pytest.raises(Malformed):
        task.decode_watch(pb.WatchRequest(instances=["x"]))
    with pytest.raises(Malformed):
        task.decode_watched(pb.WatchResponse())
