"""The life of a process: real ones for signals and hardening, a manual clock for loops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from ca.errors import Denied, Unavailable
from ca.runtime.process import Readiness, Wake, background, is_retryable, stop_now, task
from fakes.clock import ManualClock

GUARD = 60.0

HEAD = """
import asyncio, os, sys
from contextlib import asynccontextmanager, AsyncExitStack
from ca.errors import Denied, Unavailable
from ca.runtime import log, process
from ca.runtime.clock import SystemClock
from ca.runtime.document import BadSettings
log.setup("test", json=True)
clock = SystemClock()

@asynccontextmanager
async def part(name):
    print("open", name, flush=True)
    try:
        yield
    finally:
        print("close", name, flush=True)
"""
STACK = """
async def main():
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(part("store"))
        await stack.enter_async_context(process.background("loop", tick, every=0.01, clock=clock))
        await stack.enter_async_context(part("listener"))
        print("ready", flush=True)
        await process.until_stopped()
        print("stopped", flush=True)
sys.exit(process.run(main))
"""


@contextmanager
def life(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`, ended at the latest with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=GUARD)
    return process.returncode, out, err


def until(process: subprocess.Popen[str], line: str) -> None:
    """Read its stdout up to `line`."""
    assert process.stdout is not None
    for found in process.stdout:
        if found.strip() == line:
            return
    raise AssertionError(f"it never said `{line}`")


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_the_reverse_order_of_the_start(name: signal.Signals) -> None:
    """Listener first, store last, exit code 0."""
    with life("async def tick(now): pass\n" + STACK) as process:
        until(process, "ready")
        process.send_signal(name)
        code, out, err = outcome(process)
    assert (code, out.split("\n")[:3]) == (0, ["stopped", "close listener", "close store"])
    assert f'"reason": "{name.name}"' in err


def test_a_dead_loop_ends_the_process_in_order_and_non_zero() -> None:
    """A process without its loop would be alive and wrong; the reason is logged without the exception's text."""
    with life("async def tick(now): raise ValueError('hunter2')\n" + STACK) as process:
        code, out, err = outcome(process)
    assert code == 1
    assert out.splitlines()[-2:] == ["close listener", "close store"]
    assert '"loop": "loop"' in err
    assert "ValueError" in err
    assert "hunter2" not in err
    assert "Traceback" not in err


def test_wrong_settings_end_it_with_two() -> None:
    """Each fault on its line of the log."""
    code = "async def main(): raise BadSettings(['a.yaml:1: x: is required', 'a.yaml:2: y: is required'])\n"
    with life(code + "sys.exit(process.run(main))") as process:
        status, _, err = outcome(process)
    assert status == 2
    assert [line.split('"fault": ')[1].strip('"}') for line in err.splitlines()] == [
        "a.yaml:1: x: is required",
        "a.yaml:2: y: is required",
    ]


def test_another_problem_ends_it_with_one() -> None:
    """Its sentence is in the log."""
    with life("async def main(): raise Denied('not so')\nsys.exit(process.run(main))") as process:
        status, _, err = outcome(process)
    assert (status, "not so" in err) == (1, True)


def test_sigterm_during_the_start_cancels_it() -> None:
    """A start that waits for something that never comes can still be stopped."""
    code = """
async def main():
    async with part("store"):
        print("ready", flush=True)
        await asyncio.Event().wait()
sys.exit(process.run(main))
"""
    with life(code) as process:
        until(process, "ready")
        process.send_signal(signal.SIGTERM)
        assert outcome(process)[:2] == (0, "close store\n")


def test_a_second_interrupt_does_not_wait_and_a_third_ends_on_the_spot() -> None:
    """Ctrl-C twice cancels the draining; three times ends the process whatever it does."""
    code = """
async def main():
    async with part("store"):
        try:
            print("ready", flush=True)
            await process.until_stopped()
            print("draining", flush=True)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            await asyncio.Event().wait()
sys.exit(process.run(main))
"""
    with life(code) as process:
        for said in ("ready", "draining", "cancelled"):
            until(process, said)
            process.send_signal(signal.SIGINT)
        assert outcome(process)[:2] == (130, "")


def test_a_fatal_error_ends_the_process_from_any_thread_at_once() -> None:
    """After an I/O error at COMMIT nothing may run any more, not even clean-up."""
    code = """
async def main():
    async with part("store"):
        await asyncio.to_thread(process.fatal, OSError(5, "Input/output error"))
sys.exit(process.run(main))
"""
    with life(code) as process:
        status, out, err = outcome(process)
    assert (status, out) == (1, "open store\n")
    assert "Input/output error" in err


def test_no_core_can_be_written_and_nobody_can_look_in() -> None:
    """The core limit is zero and the process is not dumpable: /proc belongs to root, tracing is refused."""
    code = """
import ctypes, resource
async def main():
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
sys.exit(process.run(main))
"""
    with life(code) as process:
        assert outcome(process)[:2] == (0, "(0, 0) 0\n")


def test_an_unknown_fail_point_action_is_refused_at_start() -> None:
    """A fault test that tests nothing must not look green."""
    with life(
        "async def main(): print('ran')\nsys.exit(process.run(main))", SOJOURN_FAILPOINTS="a.b=explode"
    ) as process:
        status, out, err = outcome(process)
    assert (status, out) == (2, "")
    assert "SOJOURN_FAILPOINTS" in err


def test_a_thread_that_dies_tells_no_secret() -> None:
    """Python's own hook would print the exception's text."""
    code = """
import threading
def die(): raise ValueError("hunter2")
async def main():
    thread = threading.Thread(target=die); thread.start(); thread.join()
sys.exit(process.run(main))
"""
    with life(code) as process:
        _, _, err = outcome(process)
    assert "a thread died" in err
    assert "hunter2" not in err


def test_a_task_nobody_awaited_tells_no_secret() -> None:
    """The default handler of asyncio would print the repr of the future."""
    code = """
import gc
async def main():
    async def die(): raise ValueError("hunter2")
    lost = asyncio.ensure_future(die())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del lost
    gc.collect()
sys.exit(process.run(main))
"""
    with life(code) as process:
        _, _, err = outcome(process)
    assert "unhandled" in err
    assert "hunter2" not in err


async def test_a_loop_ticks_at_once_and_then_each_interval() -> None:
    """With the time of its tick."""
    clock, seen = ManualClock(), list[datetime]()
    start = clock.now()

    async def tick(now: datetime) -> None:
        seen.append(now)

    async with background("loop", tick, every=2.0, clock=clock):
        await clock.advance(5)
    assert [(moment - start).total_seconds() for moment in seen] == [0, 2, 4]


async def test_a_wake_ticks_sooner_and_several_count_as_one() -> None:
    """Nothing woken is lost, nothing runs twice at a time."""
    clock, wake, seen = ManualClock(), Wake(), list[datetime]()

    async def tick(now: datetime) -> None:
        seen.append(now)
        if len(seen) == 2:
            wake.set()  # while ticking: it is looked at again

    async with background("loop", tick, every=1000.0, clock=clock, wake=wake):
        await clock.settle()
        wake.set()
        wake.set()
        await clock.settle()
    assert len(seen) == 3


async def test_a_wake_that_is_cancelled_is_not_lost() -> None:
    """Whoever waits next still sees it."""
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())  # noqa: TID251 - a waiter that is cancelled on purpose
    await ManualClock().settle()
    wake.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(GUARD):
        await wake.wait()


async def test_a_retryable_problem_is_tried_again() -> None:
    """Alone or in a group; the count tells which tick was which."""
    clock, counted = ManualClock(), list[str]()
    troubles: list[Exception | None] = [
        Unavailable("down"), ExceptionGroup("two", [Unavailable("a"), Unavailable("b")]), None,
    ]  # fmt: skip

    async def tick(_: datetime) -> None:
        trouble = troubles.pop(0)
        if trouble is not None:
            raise trouble

    async with background("loop", tick, every=1.0, clock=clock, count=counted.append):
        await clock.advance(2)
    assert counted == ["retried", "retried", "done"]


@pytest.mark.parametrize("error", [Denied("no"), ValueError("x"), ExceptionGroup("g", [Unavailable("a"), Denied("b")])])
async def test_anything_else_ends_the_stack(error: Exception) -> None:
    """The block is cancelled where it waits and the error comes out of it."""

    async def tick(_: datetime) -> None:
        raise error

    with pytest.raises(BaseExceptionGroup) as caught:
        async with background("loop", tick, every=1.0, clock=ManualClock()):
            await asyncio.Event().wait()
    assert caught.value.exceptions == (error,)


async def test_background_work_that_ends_by_itself_is_dead_too() -> None:
    """It was meant to go on."""

    async def work() -> None:
        return

    with pytest.raises(BaseExceptionGroup) as caught:
        async with task("follower", work):
            await asyncio.Event().wait()
    assert "follower" in str(caught.value.exceptions[0])


async def test_leaving_the_block_ends_the_work_and_waits_for_it() -> None:
    """Nothing runs on behind the stack."""
    ended = list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ManualClock().sleep(0)
            ended.append("work")

    async with task("follower", work):
        await ManualClock().settle()
    assert ended == ["work"]


def test_only_a_process_that_runs_can_be_stopped() -> None:
    """Elsewhere it is a mistake of ours."""
    with pytest.raises(RuntimeError):
        stop_now("no")


def test_retryable_is_a_property_of_everything_inside() -> None:
    """One that isn't spoils the group."""
    assert is_retryable(Unavailable("x"))
    assert not is_retryable(ExceptionGroup("g", [Unavailable("x"), ValueError("y")]))
    assert not is_retryable(OSError())


async def test_readiness_says_what_is_waited_for() -> None:
    """Ready when there is a part and every one is; a part may wait again."""
    readiness = Readiness()
    assert not readiness.is_ready
    identity, store = readiness.part("identity"), readiness.part("store")
    identity.waiting("the Workload API")
    store.ready()
    assert readiness.report() == {
        "ready": False,
        "parts": {
            "identity": {"ready": False, "waiting_for": "the Workload API"},
            "store": {"ready": True, "waiting_for": None},
        },
    }
    identity.ready()
    async with asyncio.timeout(GUARD):
        await readiness.until_ready()
    readiness.part("identity").waiting("a new SVID")
    assert not readiness.is_ready


def test_a_server_takes_all_the_descriptors_it_may_have() -> None:
    """Strangers who connect must not use up the 1024 of a shell."""
    told = "import resource; from ca.runtime.process import take_descriptors as take;"
    lower = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128));"
    shown = "print(take(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert subprocess.check_output([sys.executable, "-c", told + lower + shown], text=True) == "128 128 128\n"


async def test_work_that_is_cancelled_by_nobody_ends_the_process() -> None:
    """A cancellation that leaked out of a library would otherwise end a loop without a word."""

    async def leaks() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ExceptionGroup, match="unhandled") as died:
        async with task("leaks", leaks):
            await asyncio.Event().wait()
    assert "was cancelled, and not by leaving" in str(died.value.exceptions[0])
