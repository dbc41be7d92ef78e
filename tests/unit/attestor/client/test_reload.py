"""Who is told that files changed, and who never is: with real processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attestor.client.reload import Command, PidFile, Process, signal_of, tell_all
from ca.errors import Denied, Malformed, NotFound, Unavailable
from ca.runtime.clock import SystemClock
from journeys.processes import Running, started

_HANGS_UP = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {1}); print('ready', flush=True)\n"
_HANGS_UP += "while signal.sigwait({1}): print('told', flush=True)"
HUP = signal.SIGHUP


@asynccontextmanager
async def listening(folder: Path, name: str = "server") -> AsyncIterator[Running]:
    """A process that says when it was told."""
    async with started(sys.executable, "-c", _HANGS_UP, folder=folder, name=name) as process:
        await process.line("ready")
        yield process


def pid_file(folder: Path, text: str) -> PidFile:
    """Written now."""
    path = folder / "server.pid"
    path.write_text(text)
    return PidFile(path, HUP, SystemClock())


async def test_a_process_is_told_until_it_ends(tmp_path: Path) -> None:
    """And whoever has its pid afterwards is not."""
    async with listening(tmp_path) as process:
        held = Process(process.pid, HUP)
        assert await held.tell({}) == f"process {process.pid}"
        await process.line("told")
        await process.end(signal.SIGKILL)
        with pytest.raises(NotFound, match="has ended"):
            await held.tell({})
        held.close()
    with pytest.raises(NotFound):
        Process(2**22 + 1, HUP)


async def test_a_pid_file_is_followed_to_the_next_process(tmp_path: Path) -> None:
    """Nobody while it names nobody; the successor as soon as it is named."""
    held = pid_file(tmp_path, "")
    (tmp_path / "server.pid").unlink()
    with pytest.raises(Unavailable, match="nobody was told"):
        await held.tell({})
    for turn in ("first", "second"):
        async with listening(tmp_path, turn) as process:
            (tmp_path / "server.pid").write_text(f"{process.pid}\n")
            for _ in range(2):
                await held.tell({})
                await process.line("told")
            await process.end(signal.SIGKILL)
            with pytest.raises(Unavailable, match="nobody was told"):
                await held.tell({})
    held.close()


async def test_a_process_younger_than_the_file_is_somebody_else(tmp_path: Path) -> None:
    """The pid was used again: SIGHUP would end whoever has it now."""
    async with listening(tmp_path) as process:
        held = pid_file(tmp_path, str(process.pid))
        os.utime(tmp_path / "server.pid", (1, 1))
        with pytest.raises(Unavailable, match="is younger than"):
            await held.tell({})
        (tmp_path / "server.pid").touch()
        await held.tell({})
        await process.line("told")
        held.close()


@pytest.mark.parametrize("text", ["", "nginx", "0", "-1", "4294967296", "99999999999999999999", "1.5"])
async def test_a_file_without_a_number_means_nobody(tmp_path: Path, text: str) -> None:
    """0 would be a whole group, -1 everybody."""
    with pytest.raises(Malformed, match="number of a process"):
        await pid_file(tmp_path, text).tell({})


async def test_a_file_anybody_may_write_is_not_believed(tmp_path: Path) -> None:
    """They would choose whom we signal."""
    async with listening(tmp_path) as process:
        held = pid_file(tmp_path, str(process.pid))
        (tmp_path / "server.pid").chmod(0o666)
        with pytest.raises(Denied, match="not believed"):
            await held.tell({})


async def test_a_command_gets_the_folder_and_no_shell(tmp_path: Path) -> None:
    """Words stay words; its environment says where the new state is."""
    out = tmp_path / "out"
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['SOJOURN_SVID_FOLDER'] + sys.argv[2])"
    told = Command((sys.executable, "-c", script, str(out), "; $(x)"))
    assert await told.tell({"SOJOURN_SVID_FOLDER": "/here"}) == f"command {sys.executable}"
    assert out.read_text() == "/here; $(x)"


async def test_a_command_that_fails_or_hangs_is_said_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The others are told all the same; one that hangs is killed."""
    async with listening(tmp_path) as process:
        held = Process(process.pid, HUP)
        hangs = Command((sys.executable, "-c", "import signal; signal.pause()"), patience=0.2)
        reached, failed = await tell_all([Command(("/bin/false",)), hangs, Command(("/no/such",)), held], {})
        assert reached == [f"process {process.pid}"]
        assert [type(one) for one in failed] == [Unavailable, Unavailable, NotFound]
        await process.line("told")
        held.close()


def test_a_signal_by_its_name() -> None:
    """One that ends a process without its doing tells nobody anything."""
    assert signal_of("SIGHUP") == signal_of("hup") == HUP
    assert signal_of("usr1") == signal.SIGUSR1
    for wrong in ("KILL", "SIGSTOP", "1", ""):
        with pytest.raises(Malformed):
            signal_of(wrong)
