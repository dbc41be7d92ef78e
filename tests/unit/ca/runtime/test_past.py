"""Whether a store is the one that was left: told by its server, or by a marker beside its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ca.runtime.database import open_database
from ca.runtime.past import Marker, chronicle
from fakes.stores import postgres_address


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A file that stands for a store."""
    path = tmp_path / "broker.db"
    path.write_bytes(b"as it was")
    return path


def go_on(store: Path, reached: int = 0) -> str:
    """One life of a process; answers the name the store has in the end."""
    marker = Marker(store)
    marker.note(reached)
    return marker.past.next


def test_each_start_gives_the_store_another_name(store: Path) -> None:
    """A copy from before the last start has a name that is not expected any more."""
    first = Marker(store)
    assert (first.past.names, first.past.reached) == (frozenset(), 0)
    first.note(0)
    second = go_on(store, 7)
    third = Marker(store)
    assert (third.past.names, third.past.reached) == (frozenset({second}), 7)
    assert len({first.past.next, second, third.past.next}) == 3


def test_a_crash_between_marker_and_store_is_no_restore(store: Path) -> None:
    """Whichever of the two names the store has then is expected."""
    before = go_on(store)
    crashed = Marker(store)
    assert Marker(store).past.names == {before, crashed.past.next}


def test_a_crash_before_the_next_note_is_no_restore(store: Path) -> None:
    """How far it had come is less than it has come, and never more."""
    go_on(store, 3)
    crashed = Marker(store)
    crashed.note(5)
    again = Marker(store)
    assert (again.past.reached, again.past.names) == (5, frozenset({crashed.past.next}))


def test_a_copy_in_another_folder_is_not_believed(store: Path, tmp_path: Path) -> None:
    """Even with the marker beside it: it is another file."""
    go_on(store, 3)
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other, ignore=lambda *_: ["other"])
    assert Marker(other / store.name).past.names == frozenset()
    store.with_name("broker.db.past").unlink()
    assert Marker(store).past.names == frozenset()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"names": 3, "reached": 0, "inode": 1}', json.dumps({"names": [], "reached": "x", "inode": 1})],
)
def test_a_marker_that_can_not_be_read_vouches_for_nothing(store: Path, content: str) -> None:
    """And is written anew."""
    store.with_name("broker.db.past").write_text(content)
    assert Marker(store).past.names == frozenset()
    assert Marker(store).past.names


def test_where_it_can_not_be_written_the_store_keeps_its_name(store: Path) -> None:
    """A folder in the way of the draft stands for a full disk: the process starts, and nothing is mistaken."""
    name = go_on(store, 3)
    (store.parent / "broker.db.past.new").mkdir()
    marker = Marker(store)
    assert (marker.past.names, marker.past.next) == (frozenset({name}), name)
    marker.note(9)
    assert Marker(store).past.reached == 3


async def test_a_server_tells_its_own_past(tmp_path: Path) -> None:
    """The same at each start; nothing is written anywhere."""
    address = await postgres_address(tmp_path)
    told = []
    for _ in range(2):
        async with open_database(address) as database:
            found = chronicle(address, database)
            found.note(3)
            told.append(found.past)
    assert told[0] == told[1]
    assert told[0].names == {told[0].next}
    assert "timeline 1" in told[0].next
