"""Real processes for journeys: started with nothing of this environment, read line by line, gone with the test.

Each leads a process group of its own that is killed at the end, and dies with this process by PR_SET_PDEATHSIG. Nothing
sleeps: whoever waits for a process waits for a line it prints or for its end, and `PATIENCE` only guards against
hanging.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.standing import die_with_parent

PATIENCE = 60.0
ROOT = Path(__file__).resolve().parents[2]
SOJOURN = str(Path(sys.executable).with_name("sojourn"))
"""The command as it is installed."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """A private folder whose name leaves room for sockets, which `tmp_path` does not."""
    path = Path(tempfile.mkdtemp(prefix="sj-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(kw_only=True)
class Running:
    """A process; what it writes to stderr is kept in a file."""

    process: asyncio.subprocess.Process
    errors: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def line(self, containing: str = "") -> str:
        """The next line it prints that has `containing` in it; fails the test when it ends before."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while raw := await self.process.stdout.readline():
                if containing in raw.decode():
                    return raw.decode().rstrip("\n")
        raise AssertionError(f"it ended before it said `{containing}`:\n{self.errors.read_text()[-4000:]}")

    async def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send `how` and return its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(how)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def started(
    *command: str, folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run `command`; its stderr goes to `folder`/`name`.err."""
    errors = folder / f"{name}.err"
    with errors.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=surroundings(folder, environment),
            start_new_session=True,
            preexec_fn=die_with_parent,  # one call of prctl, nothing that takes a lock
        )
    running = Running(process=process, errors=errors)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await running.ended()


async def sojourn(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> Finished:
    """Run the command `sojourn` to its end."""
    return await finished(SOJOURN, *arguments, folder=folder, environment=environment, stdin=stdin)


async def finished(
    *command: str, folder: Path, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> Finished:
    """Run `command` to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=surroundings(folder, environment),
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(stdin.encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return Finished(code=process.returncode, out=out.decode(), err=err.decode())


def python(script: str, *arguments: str) -> Sequence[str]:
    """The command that runs a script beside this file."""
    return (sys.executable, str(Path(__file__).with_name(script)), *arguments)


def surroundings(folder: Path, more: Mapping[str, str] | None) -> dict[str, str]:
    """An environment that says nothing but where programs are, and no home but `folder`."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(folder), **(more or {})}
