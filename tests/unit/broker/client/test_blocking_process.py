"""The facade in a process of its own: fork, Ctrl-C, and an end of the interpreter that leaves no block."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.model.task import TaskState
from broker.wire.reports import ReportTold
from fakes.commands import ended
from fakes.place import Place, place

ROLE = "orders-db/readonly"
PROGRAM = Path(__file__).with_name("blocking_process.py")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Place]:
    """A broker."""
    async with place(tmp_path) as found:
        yield found


async def started(house: Place, how: str) -> asyncio.subprocess.Process:
    """The program, that is to end like this."""
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, **house.environment}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), how, stdout=pipe, stderr=pipe, env=environment
    )


async def only_report(house: Place) -> ReportTold:
    """Of the one task there was."""
    async with house.doors.as_operator() as operator:
        (found,) = (await operator.tasks()).items
        return await operator.report(found.id)


async def test_a_child_by_fork_is_told_and_ends_nothing(house: Place) -> None:
    """What it leaves is its parent's, who works on and ends it."""
    code, out, err = await ended(await started(house, "fork"))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "a task belongs to the process that opened it: a child made by fork opens its own",
        ROLE,
    ]
    report = await only_report(house)
    assert (report.state, len(report.leases)) == (TaskState.DONE, 2)


async def test_a_program_that_leaves_no_block_ends_its_task(house: Place) -> None:
    """At the interpreter's exit, without a word."""
    assert await ended(await started(house, "exit")) == (0, f"{ROLE}\n", "")
    assert (await only_report(house)).state is TaskState.DONE


async def test_leaving_by_sys_exit_is_no_failure(house: Place) -> None:
    """When the code is 0."""
    assert await ended(await started(house, "quit")) == (0, f"{ROLE}\n", "")
    assert (await only_report(house)).state is TaskState.DONE


async def test_ctrl_c_interrupts_what_waits_and_cancels_the_task(house: Place) -> None:
    """A call that waits for the broker is left at once."""
    process = await started(house, "wait")
    assert process.stdout is not None
    assert await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, _, err = await ended(process)
    assert code == -signal.SIGINT
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    report = await only_report(house)
    assert (report.state, report.end_words) == (TaskState.CANCELLED, "the work in it was cancelled")
