"""The warm parent of brokers: it has imported everything and does nothing but fork, so a life costs milliseconds.

    serve_cases()           one line of JSON per case on stdin; its pid, then how it ended, on stdout (`nursery.py`)

Sessions that an agent opened must outlive a killed broker, and the agent is played in it too: so the child passes a
copy of their sockets to the parent, which keeps them open until the case is forgotten.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import nullcontext
from typing import Any

from ca.runtime import failpoint, log
from faults.broker_process import broker, nothing_grows
from faults.case import Case
from faults.synced import watch


def live(case: Case, agents: socket.socket) -> None:
    """The child: one life, from start to whatever ends it. Never returns."""
    status = 1
    try:
        from faults.chance import CHANCE
        from faults.stories import STORIES

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        os.environ[failpoint.POINTS], os.environ[failpoint.MARKER] = case.points, str(case.marker)
        failpoint.arm_from_environment()
        if case.losing:
            watch(case.store, case.synced)
        with nothing_grows() if case.starved else nullcontext():
            asyncio.run(_play({**STORIES, **CHANCE}[case.story], case, agents))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test shall read it
        case.failure.write_text("".join(traceback.format_exception(_first(sys.exception()))))
    os._exit(status)


def _first(error: BaseException | None) -> BaseException | None:
    """The one that made the groups it is in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _play(story: Any, case: Case, agents: socket.socket) -> None:
    async with broker(case, agents) as alive:
        await story(alive)


def serve_cases() -> None:
    """The parent: fork, wait, tell. An empty line forgets the sessions of the cases so far."""
    from faults import chance  # noqa: F401 - imported once, here

    log.setup("broker", level="critical", stream=sys.stderr, json=True)
    kept: list[socket.socket] = []
    gc.freeze()  # what is here stays: a child's collector needn't touch, and so copy, all of it
    for line in sys.stdin:
        if not line.strip():
            while kept:
                kept.pop().close()
            _say(forgotten=True)
            continue
        keep, give = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            keep.close()
            live(Case(**json.loads(line)), give)
        give.close()
        kept.append(keep)
        _say(pid=pid)
        _, status = os.waitpid(pid, os.WUNTRACED)
        while os.WIFSTOPPED(status):
            _say(stopped=True)
            _, status = os.waitpid(pid, os.WUNTRACED)
        _say(status=os.waitstatus_to_exitcode(status))


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
