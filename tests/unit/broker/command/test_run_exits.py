"""sojourn run: its end whatever the exit, its terminal, its signals, and secrets that change while it runs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.model.task import TaskState
from broker.wire.reports import ReportTold
from fakes.caller import has_ended
from fakes.commands import answers, ended, start
from fakes.doors import PASSWORD
from fakes.place import Place
from fakes.place import place as standing
from fakes.world import role

ROLE = "orders-db/readonly"


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Place]:
    """A broker whose secrets last three seconds."""
    short = role(engine="postgres", ttl=timedelta(seconds=2), longest=timedelta(seconds=3))
    async with standing(tmp_path, short) as found:
        yield found


async def started(place: Place, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    """`sojourn run` with pipes at all three ends."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    command = (sys.executable, "-m", "broker", "run", *arguments)
    environment = {**os.environ, **place.environment}
    return await asyncio.create_subprocess_exec(*command, env=environment, **{**pipes, **options})


async def line(process: asyncio.subprocess.Process) -> str:
    """The next one it prints."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def only_report(place: Place) -> ReportTold:
    """Of the one task there was."""
    async with place.doors.as_operator() as operator:
        (found,) = (await operator.tasks()).items
        return await operator.report(found.id)


async def test_stdin_is_the_commands(place: Place) -> None:
    """Byte for byte, to its end."""
    process = await started(place, "--", "cat")
    async with asyncio.timeout(60):
        out, err = await process.communicate(b"one\0two")
    assert (process.returncode, out, err) == (0, b"one\0two", b"")


async def test_a_command_killed_by_a_signal_is_told_as_a_shell_does(place: Place) -> None:
    """128 and the number, and the task failed."""
    process = await started(place, "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert (await ended(process))[0] == 128 + signal.SIGKILL
    report = await only_report(place)
    assert (report.state, report.end_words) == (TaskState.FAILED, "the command ended with 137")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT"])
async def test_every_signal_is_the_commands_to_answer(place: Place, name: str) -> None:
    """Without a terminal, those a terminal sends as well; `run` itself lives on until the command has ended."""
    process = await started(place, "--", sys.executable, "-c", answers(name))
    assert await line(process) == "ready"
    process.send_signal(signal.Signals[name])
    assert (await ended(process))[0] == 5


async def test_what_the_command_left_behind_ends_with_it(place: Place) -> None:
    """A grandchild in a session of its own, whose parents are gone."""
    code = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "        os.close(1), os.close(2), signal.pause()\n"
        "    os._exit(0)\n"
        "os.wait(), input()\n"
    )
    process = await started(place, "--", sys.executable, "-c", code)
    left = int(await line(process))
    os.kill(left, 0)  # it is there
    assert process.stdin is not None
    process.stdin.write(b"\n")
    assert await ended(process) == (0, "", "")
    assert has_ended(left)


async def test_run_killed_takes_its_command_with_it(place: Place) -> None:
    """No handler runs at SIGKILL: the kernel ends the child."""
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    process = await started(place, "--role", ROLE, "--", sys.executable, "-c", code)
    child = int(await line(process))
    process.kill()
    await process.wait()
    assert has_ended(child)


ANSWERS_A_KEY = (
    "import os, signal, sys\n"
    "seen = []\n"
    "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
    "heard, hears = os.pipe()\n"
    "os.set_blocking(hears, False)\n"
    "signal.set_wakeup_fd(hears)\n"
    "print(sys.stdin.isatty(), os.tcgetpgrp(0) == os.getpgrp(), f'<{os.getpid()}>', flush=True)\n"
    "os.read(heard, 1)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
    "print('seen', len(seen), flush=True)\n"
)


async def test_a_key_the_command_answered_is_not_the_end_of_run(place: Place) -> None:
    """Both get it; `run` is so slow that it hears of the key and of the command's good end at once."""
    main, other = pty.openpty()
    process = await start_on(other, ("run", "--", sys.executable, "-c", ANSWERS_A_KEY), place)
    child = int((await read_until(main, ">")).rpartition("<")[2].partition(">")[0])
    process.send_signal(signal.SIGSTOP)
    os.write(main, b"\x03")
    assert await read_until(main, "seen 1")
    assert has_ended(child)
    process.send_signal(signal.SIGCONT)
    assert await process.wait() == 0
    os.close(main)


async def test_a_terminal_stays_the_commands(place: Place) -> None:
    """It is in the foreground of its terminal, and a key there reaches it once."""
    main, other = pty.openpty()
    process = await start_on(other, ("run", "--", sys.executable, "-c", ANSWERS_A_KEY), place)
    assert await read_until(main, "True True")
    os.write(main, b"\x03")
    assert await read_until(main, "seen 1")
    assert await process.wait() == 0
    os.close(main)


async def start_on(terminal: int, command: tuple[str, ...], place: Place) -> asyncio.subprocess.Process:
    """The leader of a session that has this terminal; our end of it is closed."""

    def take() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # a session's first terminal is its own

    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", *command),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, **place.environment},
            preexec_fn=take,
        )
    finally:
        os.close(terminal)


async def read_until(terminal: int, words: str) -> str:
    """What comes from it, up to `words`; by the loop, for a thread that reads could not be called back."""
    found, loop, there = b"", asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(terminal, there.set)
    try:
        async with asyncio.timeout(60):
            while words.encode() not in found:
                await there.wait()
                there.clear()
                found += os.read(terminal, 1024)
    finally:
        loop.remove_reader(terminal)
    return found.decode()


async def test_files_follow_a_secret_that_is_replaced_and_the_command_is_told(hasty: Place) -> None:
    """The file holds another user's name, whole; the same path; the service file of libpq as well."""
    code = (
        "import json, os, signal\n"
        "read = lambda: [open(os.environ[n]).read() for n in ('PGPASSFILE', 'PGSERVICEFILE')]\n"
        "told = lambda *_: print(json.dumps(read()), flush=True)\n"
        "signal.signal(signal.SIGHUP, told)\n"
        "told()\n"
        "input()\n"
    )
    gifts = ("--role", ROLE, "--notify", "HUP")
    process = await started(hasty, *gifts, "--", sys.executable, "-c", code)
    first, second = json.loads(await line(process)), json.loads(await line(process))
    users = [told[0].split(":")[3] for told in (first, second)]
    assert users[0] != users[1]
    assert all(f"user={user}\n" in told[1] for user, told in zip(users, (first, second), strict=True))
    assert process.stdin is not None
    process.stdin.write(b"\n")
    code_, _, err = await ended(process)
    assert (code_, err) == (0, "")
    assert hasty.doors.engine_target.principals == {}


async def test_no_core_is_written_and_nobody_reads_its_memory(place: Place) -> None:
    """The limit is the command's too; `run` itself can't be traced, and the secret is in no argument or environment."""
    code = "import os, resource as r; print(os.getppid(), r.getrlimit(r.RLIMIT_CORE), flush=True); input()"
    process = await started(place, "--file", f"F={ROLE}:password", "--", sys.executable, "-c", code)
    run, _, limit = (await line(process)).partition(" ")
    assert limit == "(0, 0)"
    for name in ("cmdline", "environ"):
        assert PASSWORD.encode() not in Path(f"/proc/{run}/{name}").read_bytes()
    assert Path(f"/proc/{run}/environ").stat().st_uid == 0
    assert process.stdin is not None
    process.stdin.write(b"\n")
    code_, out, err = await ended(process)
    assert (code_, out, err) == (0, "", "")


async def test_the_secret_is_in_nothing_that_is_written(place: Place) -> None:
    """A command that fails, talkative as can be: neither stream of `run` has it."""
    process = await start(
        "run", "--fd", f"D={ROLE}:password", "--", "/bin/sh", "-c", "exit 3", environment={**place.environment}
    )
    code, out, err = await ended(process)
    assert (code, PASSWORD in out + err) == (3, False)
