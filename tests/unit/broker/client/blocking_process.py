"""A program without an event loop, ended in the way its argument says; run by `test_blocking_process.py`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from broker.client.blocking import task
from ca.errors import Problem

ROLE = "orders-db/readonly"
LEFT = ExitStack()


def say(word: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def child_by_fork() -> None:
    """The child is told, leaves the block, and its parent's task goes on."""
    with task(purpose="to see", roles=[ROLE]) as work:
        work.secret(ROLE)
        pid = os.fork()
        if pid == 0:
            try:
                work.secret(ROLE)
            except Problem as problem:
                say(str(problem))
        else:
            os.waitpid(pid, 0)
            say(work.secret(ROLE).role)
    if pid == 0:
        os._exit(0)


def main(how: str) -> None:
    """One of the ways."""
    match how:
        case "fork":
            child_by_fork()
        case "exit":  # the block is never left: only the end of the interpreter is
            say(LEFT.enter_context(task(purpose="to see", roles=[ROLE])).secret(ROLE).role)
        case "quit":
            with task(purpose="to see", roles=[ROLE]) as work:
                say(work.secret(ROLE).role)
                sys.exit(0)
        case "wait":
            with task(purpose="to see", roles=[ROLE]) as work:
                secret = work.secret(ROLE)
                say(work.id)
                work.until_over(secret)


main(sys.argv[1])
