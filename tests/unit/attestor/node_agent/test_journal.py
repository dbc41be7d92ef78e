"""The journal of instances: what is promised is on the disk, what is on the disk is found again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from attestor.instance import new_id
from attestor.node_agent.cgroups import CgroupName
from attestor.node_agent.journal import Journal
from attestor.node_agent.peer import ProcessName
from ca.errors import Conflict, Unavailable
from fakes.disk import full_disk

NAME = ProcessName(pid=4242, start_time=77, boot_id="0f0f", inode=9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal lies."""
    return tmp_path / "journal"


async def test_what_began_is_found_after_a_restart(path: Path) -> None:
    """An instance keeps its process over a restart of the node agent."""
    instance = new_id()
    journal = Journal(path)
    await journal.begin(instance, NAME)
    journal.close()
    again = Journal(path)
    assert again.live == {instance: NAME}
    again.close()


async def test_a_cgroup_is_found_as_it_was(path: Path) -> None:
    """Whatever it is called; a line that lacks something of its name is none, and hides no other."""
    named = CgroupName(
        controllers=("name=systemd",), path="/system.slice/\udcff \u2028\n.service", inode=7, boot_id="0f"
    )
    unified, process = CgroupName(controllers=(), path="/a", inode=8, boot_id="0f"), new_id()
    journal, first, second = Journal(path), new_id(), new_id()
    await journal.begin(first, named)
    await journal.begin(second, unified)
    await journal.begin(process, NAME)
    journal.close()
    with path.open("ab") as file:
        for bad in (
            b'{"instance":"x","path":"/b","inode":9,"boot_id":"0f"}',
            b'{"instance":"x","path":"/b","controllers":7,"inode":9,"boot_id":"0f"}',
            b'{"instance":"x","path":"/b","controllers":[],"inode":"nine","boot_id":"0f"}',
        ):
            file.write(b"\n" + bad)
    again = Journal(path)
    assert again.live == {first: named, second: unified, process: NAME}
    again.close()


async def test_what_began_is_on_the_disk_when_begin_returns(path: Path) -> None:
    """Not after close, not soon: a kill -9 right after finds it."""
    instance = new_id()
    journal = Journal(path)
    await journal.begin(instance, NAME)
    assert instance.encode() in path.read_bytes()
    journal.close()


async def test_what_ended_is_not_found(path: Path) -> None:
    """An end is written too, though nobody waits for it."""
    journal = Journal(path)
    ended, lives = new_id(), new_id()
    await journal.begin(ended, NAME)
    journal.end(ended)
    await journal.begin(lives, NAME)
    journal.close()
    again = Journal(path)
    assert set(again.live) == {lives}
    again.close()


async def test_many_at_once_are_all_written(path: Path) -> None:
    """Lines that arrive together share a sync and none is lost."""
    journal = Journal(path)
    instances = {new_id() for _ in range(300)}
    await asyncio.gather(*(journal.begin(instance, NAME) for instance in instances))
    journal.close()
    again = Journal(path)
    assert set(again.live) == instances
    again.close()


@pytest.mark.parametrize(
    "torn", [b'\n{"instance":"aa', b"\n\x00\x00\x00", b"\n[]", b'\n"text"', b"\n5", b'\n{"ended":[]}']
)
async def test_a_line_that_cannot_be_read_costs_only_itself(path: Path, torn: bytes) -> None:
    """A torn write is reported as gone; what was promised before and after it stays."""
    before, after = new_id(), new_id()
    journal = Journal(path)
    await journal.begin(before, NAME)
    journal.close()
    path.write_bytes(path.read_bytes() + torn)
    journal = Journal(path)
    await journal.begin(after, NAME)
    journal.close()
    again = Journal(path)
    assert set(again.live) == {before, after}
    again.close()


async def test_two_node_agents_cannot_use_one_journal(path: Path) -> None:
    """The second is told so in a sentence and changes nothing."""
    journal = Journal(path)
    with pytest.raises(Conflict, match="another node agent uses"):
        Journal(path)
    await journal.begin(new_id(), NAME)
    journal.close()


async def test_it_does_not_grow_for_ever(path: Path) -> None:
    """What ended long ago is dropped while it runs, and what lives is kept."""
    journal = Journal(path, compact_at=4096)
    lives = new_id()
    await journal.begin(lives, NAME)
    for _ in range(200):
        instance = new_id()
        await journal.begin(instance, NAME)
        journal.end(instance)
    await journal.begin(new_id(), NAME)
    assert path.stat().st_size < 8192
    journal.close()
    again = Journal(path)
    assert lives in again.live
    again.close()


async def test_a_full_disk_refuses_a_beginning_and_leaves_no_torn_line(path: Path) -> None:
    """Nothing is handed over that is not on the disk; when there is room again it goes on."""
    journal = Journal(path)
    before, refused, after = new_id(), new_id(), new_id()
    await journal.begin(before, NAME)
    with full_disk(path, 20):
        with pytest.raises(Unavailable, match="can't write the journal"):
            await journal.begin(refused, NAME)
        journal.end(before)  # endings go on: the process is gone in any case
    await journal.begin(after, NAME)
    journal.close()
    again = Journal(path)
    assert set(again.live) - {before} == {after}
    again.close()


async def test_a_full_disk_does_not_keep_a_node_agent_from_starting(path: Path) -> None:
    """Who lives must be known all the same, to be ended when it dies."""
    journal = Journal(path)
    instance = new_id()
    await journal.begin(instance, NAME)
    journal.close()
    with full_disk(path, -path.stat().st_size + 1):
        again = Journal(path)
        assert set(again.live) == {instance}
        again.close()


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    """Which file, and why."""
    with pytest.raises(Unavailable, match="No such file"):
        Journal(tmp_path / "missing" / "journal")


async def test_nobody_else_may_read_it(path: Path) -> None:
    """It says which process is which instance."""
    Journal(path).close()
    assert os.stat(path).st_mode & 0o077 == 0  # noqa: PTH116
