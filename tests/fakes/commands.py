"""Subcommands of `sojourn`: in this process on a thread of their own, or as the process a user starts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from click.testing import CliRunner, Result

from broker.command import root

GUARD = 60.0
"""Seconds after which a command that hangs is given up; no bound on anything that works."""


async def invoke(*arguments: object, environment: Mapping[str, str] | None = None) -> Result:
    """Run a subcommand beside this test's own loop, so that what it asks can be served here."""
    with _log_kept():
        return await asyncio.to_thread(
            CliRunner().invoke, root, [str(argument) for argument in arguments], env=dict(environment or {})
        )


def invoke_here(*arguments: object) -> Result:
    """Run a subcommand that asks nobody."""
    with _log_kept():
        return CliRunner().invoke(root, [str(argument) for argument in arguments])


async def start(
    *arguments: object, environment: Mapping[str, str], out: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    """Start `sojourn` as a process, its output in pipes unless `out` says otherwise."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    async with asyncio.timeout(GUARD):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (out or b"").decode(), err.decode()


def answers(name: str) -> str:
    """A command that prints `ready` and ends with 5 when it gets the signal, however soon after."""
    return (
        "import signal, sys\n"
        f"heard = [signal.{name}]\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, heard)\n"
        "print('ready', flush=True)\n"
        "signal.sigwait(heard)\n"
        "sys.exit(5)\n"
    )


@contextmanager
def _log_kept() -> Iterator[None]:
    """A command sets up the log for its own process; afterwards it is this test run's again."""
    root_logger = logging.getLogger()
    handlers, level = root_logger.handlers[:], root_logger.level
    levels = {name: logging.getLogger(name).level for name in ("ca", "attestor", "broker")}
    try:
        yield
    finally:
        root_logger.handlers[:] = handlers
        root_logger.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
