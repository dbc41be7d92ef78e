"""What the operating system says of a process, with real processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from attestor.methods.workload.proc import ProcessFolder
from attestor.methods.workload.protocol import Subject
from attestor.methods.workload.unix import REMEMBERED, UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import Findings, peer_of
from attestor.selector import texts
from fakes.caller import Caller, caller
from fakes.clock import ManualClock
from fakes.pki import NOON

OTHER = 4321


@pytest.fixture(params=[False, True], ids=["forgets", "remembers"])
def source(request: pytest.FixtureRequest) -> Iterator[UnixSource]:
    """The source under test, and its threads ended; what it remembers changes no answer."""
    one = UnixSource(clock=ManualClock(NOON) if request.param else None)
    yield one
    one.close()


async def attest(one: Caller, source: UnixSource) -> Findings:
    """What is found out about `one`."""
    peer = peer_of(one.connection)
    try:
        return await Attestor([source]).attest(peer)
    finally:
        peer.close()


async def test_user_groups_and_executable_are_found(tmp_path: Path, source: UnixSource) -> None:
    """The selectors SPIRE's users know, of the process that connected."""
    with caller(tmp_path, user=OTHER, groups=[27, 4322]) as one:
        found = await attest(one, source)
    said = set(texts(found.selectors))
    python = os.path.realpath(sys.executable)
    assert {
        f"unix:uid:{OTHER}",
        f"unix:gid:{OTHER}",
        "unix:supplementary_gid:27",
        "unix:supplementary_gid:4322",
    } <= said
    assert f"unix:path:{python}" in said
    assert f"unix:sha256:{hashlib.sha256(Path(python).read_bytes()).hexdigest()}" in said
    assert "unix:self:true" not in said


async def test_names_are_found_where_the_system_has_them(tmp_path: Path, source: UnixSource) -> None:
    """Root has a name on every system; the user 4321 has none and gets no selector for it."""
    with caller(tmp_path) as one:
        said = set(texts((await attest(one, source)).selectors))
    assert {"unix:user:root", "unix:group:root"} <= said
    with caller(tmp_path, user=OTHER) as one:
        said = set(texts((await attest(one, source)).selectors))
    assert not any(text.startswith("unix:user:") for text in said)


async def test_a_large_executable_gets_no_digest(tmp_path: Path) -> None:
    """Whoever starts one must not keep us busy."""
    source = UnixSource(hash_limit=1)
    with caller(tmp_path) as one:
        said = texts((await attest(one, source)).selectors)
    source.close()
    assert not any(text.startswith("unix:sha256:") for text in said)
    assert any(text.startswith("unix:path:") for text in said)


async def test_the_path_can_be_left_out(tmp_path: Path) -> None:
    """Then neither path nor digest is looked at."""
    source = UnixSource(discover_path=False)
    with caller(tmp_path) as one:
        said = texts((await attest(one, source)).selectors)
    source.close()
    assert not any("path" in text or "sha256" in text for text in said)


async def test_a_replaced_executable_has_no_path(tmp_path: Path, source: UnixSource) -> None:
    """Another file under the name a process was started by is not what runs."""
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    process = await asyncio.create_subprocess_exec(str(program), "60")
    try:
        found = texts(await source.selectors(subject_of(process.pid)))
        assert f"unix:path:{program}" in found
        program.unlink()
        shutil.copy("/bin/true", program)
        found = texts(await source.selectors(subject_of(process.pid)))
        assert not any(text.startswith("unix:path:") for text in found)
        assert f"unix:sha256:{hashlib.sha256(Path('/bin/sleep').read_bytes()).hexdigest()}" in found
    finally:
        process.kill()
        await process.wait()


def subject_of(pid: int) -> Subject:
    """A process that is not connected, as a source sees it."""
    folder = ProcessFolder(os.open(f"/proc/{pid}", os.O_RDONLY))
    return Subject(pid=pid, uid=0, gid=0, start_time=folder.start_time(), folder=folder)


async def test_a_bind_mount_in_a_namespace_of_its_own_is_not_believed(tmp_path: Path, source: UnixSource) -> None:
    """A process that mounts its own program over a known name runs that file, and is not given the name."""
    known, own = tmp_path / "known", tmp_path / "own"
    shutil.copy("/bin/true", known)
    shutil.copy("/bin/sleep", own)
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "sh", "-c", f"mount --bind {own} {known} && echo && exec {known} 60", stdout=-1
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        while Path(f"/proc/{process.pid}/exe").readlink().name != "known":
            await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)
        said = texts(await source.selectors(subject_of(process.pid)))
        assert not any(text.startswith("unix:path:") for text in said)
    finally:
        process.kill()
        await process.wait()


async def test_a_user_with_a_crowd_of_slow_executables_waits_alone(tmp_path: Path) -> None:
    """Another user's process is looked at meanwhile."""
    seen, go = threading.Event(), threading.Event()

    class Slow(UnixSource):
        """Takes its time for one user."""

        def _look(self, subject: Subject) -> Any:
            if subject.uid == OTHER:
                seen.set()
                go.wait(60)
            return super()._look(subject)

    source = Slow()
    with ExitStack() as processes:
        crowd = [processes.enter_context(caller(tmp_path, user=OTHER)) for _ in range(3)]
        one = processes.enter_context(caller(tmp_path))
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            slow = [group.create_task(attest(each, source)) for each in crowd]
            await asyncio.get_running_loop().run_in_executor(None, seen.wait, 60)
            try:
                assert (await asyncio.wait_for(attest(one, source), 30)).selectors
                assert not any(each.done() for each in slow)
            finally:
                go.set()
    source.close()


async def test_what_was_said_is_remembered_for_a_while_for_who_looks_the_same(tmp_path: Path) -> None:
    """Without its threads it can ask nobody: it answers from memory, for nobody else, and not for long."""
    clock = ManualClock(NOON)
    source = UnixSource(clock=clock)
    with caller(tmp_path, user=OTHER, groups=[27]) as one, caller(tmp_path, user=OTHER, groups=[28]) as other:
        first = await attest(one, source)
        source.close()
        assert (await attest(one, source)).selectors == first.selectors
        with pytest.raises(RuntimeError):
            await attest(other, source)
        await clock.advance(REMEMBERED)
        with pytest.raises(RuntimeError):
            await attest(one, source)
