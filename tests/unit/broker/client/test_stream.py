"""Events off the wire, in whatever pieces they come."""

from __future__ import annotations

import json

import pytest

from broker.client.stream import LARGEST, Message, Reader, Snapshot, told
from broker.model.event import EventKind
from broker.wire.events import EventLine
from ca.errors import Malformed
from ca.runtime.stream import encoded
from fakes.nouns import task


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_become_messages(size: int) -> None:
    """As the server encodes them, cut anywhere."""
    wire = encoded("a.1", "task.ended", '{"a": 1}') + encoded(None, "beat", "a.1") + encoded("a.2", "x", "one\ntwo")
    reader, found = Reader(), []
    for start in range(0, len(wire), size):
        found += list(reader.feed(wire[start : start + size]))
    assert found == [
        Message("a.1", "task.ended", '{"a": 1}'),
        Message(None, "beat", "a.1"),
        Message("a.2", "x", "one\ntwo"),
    ]


def test_a_comment_or_an_empty_block_is_nothing() -> None:
    """What has no name is no message."""
    assert list(Reader().feed(b": hello\n\n\ndata: x\n\n")) == []


def test_a_message_without_end_is_refused() -> None:
    """A broker gone mad can't fill our memory."""
    with pytest.raises(Malformed):
        feed_for_ever(b"x" * 2**20)
    with pytest.raises(Malformed):
        feed_for_ever(b"data: " + b"x" * 2**16 + b"\n")


def feed_for_ever(piece: bytes) -> None:
    """More than one message may have."""
    reader = Reader()
    for _ in range(LARGEST // len(piece) + 2):
        list(reader.feed(piece))


def test_what_is_not_text_is_refused() -> None:
    """Never guessed at."""
    with pytest.raises(Malformed):
        list(Reader().feed(b"data: \xff\n"))


def test_an_event_and_a_snapshot_are_read() -> None:
    """Both forms there are."""
    one = task()
    line = {
        "epoch": "a.1",
        "kind": "task.ended",
        "at": "2026-11-23T12:00:00Z",
        "task": one.id,
        "root": one.id,
        "body": {},
    }
    event = told(Message("a.1", "task.ended", json.dumps(line)))
    assert isinstance(event, EventLine)
    assert event.kind is EventKind.TASK_ENDED
    content = {"epoch": "a.2", "tasks": [{"id": one.id, "version": 3}], "leases": []}
    found = told(Message("a.2", "resync", json.dumps(content)))
    assert found == Snapshot(epoch="a.2", tasks={one.id: 3}, leases=frozenset())
    with pytest.raises(Malformed):
        told(Message("a.1", "task.ended", "[]"))
