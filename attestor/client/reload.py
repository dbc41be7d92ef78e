"""Tell programs that their files changed: a signal to the very process that is meant, or a command.

A pid is held as a pidfd, so one that was used again is never hit. A pid file is looked at each time, for the program
may have been started anew; whoever has that pid must have started before the file was written, or it is somebody who
came later and the file is left over: the SIGHUP would end him. Whoever could write the file must be root, ourselves, or
the user of that process: nobody has us signal what he could not. While a pid file names nobody there is nobody to tell,
and the program will read the newest files when it starts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ca.errors import Denied, Malformed, NotFound, Problem, Unavailable
from ca.runtime.clock import Clock

PATIENCE = 30.0
"""Seconds a command may take before it is killed."""

_SLACK = 0.1  # seconds: the kernel counts starts in hundredths of a second


class Listener(Protocol):
    """Somebody who wants to know."""

    async def tell(self, environment: Mapping[str, str]) -> str:
        """Tell; answers in a few words whom. Raises a Problem that says why not."""

    def close(self) -> None:
        """Nobody needs to be told any more."""


class Process:
    """One process by its pid, held from the start."""

    def __init__(self, pid: int, number: signal.Signals) -> None:
        """Raises NotFound."""
        self._pid, self._signal = pid, number
        self._held = _opened(pid)

    def close(self) -> None:
        """Let it go."""
        os.close(self._held)

    async def tell(self, _: Mapping[str, str]) -> str:
        """The signal. Raises NotFound when it has ended, which it does for good."""
        _send(self._held, self._pid, self._signal)
        return f"process {self._pid}"


class PidFile:
    """The process a file names at the moment it is told; held as long as the file is the same.

    So a clock that is set later changes nothing about who is meant.
    """

    def __init__(self, path: Path, number: signal.Signals, clock: Clock) -> None:
        self._path, self._signal, self._clock = path, number, clock
        self._seen: tuple[int, int, int] | None = None  # inode, time of the last change, pid
        self._held = -1

    def close(self) -> None:
        """Let it go."""
        if self._seen is not None:
            os.close(self._held)
        self._seen = None

    async def tell(self, _: Mapping[str, str]) -> str:
        """The signal. Raises Unavailable: nobody is there now. Raises Malformed: the file names no process."""
        try:
            status, pid = self._read()
            seen = (status.st_ino, status.st_mtime_ns, pid)
            if seen != self._seen:
                self.close()
                self._held = self._meant(pid, status)
                self._seen = seen
            _send(self._held, pid, self._signal)
        except NotFound as error:
            raise Unavailable(f"`{self._path}` names no process that runs, so nobody was told") from error
        return f"process {pid}"

    def _read(self) -> tuple[os.stat_result, int]:
        try:
            with self._path.open("rb") as file:
                status, words = os.fstat(file.fileno()), file.read(64).split()
        except FileNotFoundError as error:
            raise NotFound(f"there is no `{self._path}`") from error
        except OSError as error:
            raise Unavailable(f"can't read `{self._path}`: {error.strerror}") from error
        if not words or not words[0].isdigit() or not 0 < int(words[0]) < 2**31:
            raise Malformed(f"`{self._path}` does not begin with the number of a process")
        return status, int(words[0])

    def _meant(self, pid: int, status: os.stat_result) -> int:
        held = _opened(pid)
        try:
            self._check_meant(pid, status)
        except Problem:
            os.close(held)
            raise
        return held

    def _check_meant(self, pid: int, status: os.stat_result) -> None:
        try:
            user = Path(f"/proc/{pid}").stat().st_uid
        except OSError as error:
            raise NotFound(f"there is no process `{pid}` to signal") from error
        if status.st_uid not in {0, os.geteuid(), user} or status.st_mode & 0o002:
            raise Denied(f"`{self._path}` may have been written by somebody else, so it is not believed")
        if self._started(pid) <= status.st_mtime + _SLACK:
            return
        raise Unavailable(
            f"the process {pid} is younger than `{self._path}`, so another was meant that has ended; where only the "
            "clock was set, touch the file"
        )

    def _started(self, pid: int) -> float:
        """When, as the clock of files says it. Raises NotFound."""
        try:
            ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
        except (OSError, ValueError, IndexError) as error:
            raise NotFound(f"there is no process `{pid}` to signal") from error
        return self._clock.now().timestamp() - (self._clock.boot() - ticks / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class Command:
    """A command run after each change; one at a time, never in a shell."""

    words: Sequence[str]
    patience: float = PATIENCE

    def close(self) -> None:
        """Nothing is held."""

    async def tell(self, environment: Mapping[str, str]) -> str:
        """Run it. Raises NotFound: there is no such command. Raises Unavailable: it failed or took too long."""
        name = self.words[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self.words, stdin=asyncio.subprocess.DEVNULL, env={**os.environ, **environment}
            )
        except (FileNotFoundError, PermissionError) as error:
            raise NotFound(f"can't run `{name}`: {error.strerror}") from error
        try:
            async with asyncio.timeout(self.patience):
                code = await process.wait()
        except TimeoutError as error:
            raise Unavailable(f"`{name}` did not end in {self.patience:g} seconds and was killed") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code:
            raise Unavailable(f"`{name}` failed with the code {code}")
        return f"command {name}"


async def tell_all(listeners: Sequence[Listener], environment: Mapping[str, str]) -> tuple[list[str], list[Problem]]:
    """Tell everybody, whatever becomes of the others; whom it reached and why not the rest."""
    reached, failed = list[str](), list[Problem]()
    for one in listeners:
        try:
            reached.append(await one.tell(environment))
        except Problem as problem:
            failed.append(problem)
    return reached, failed


def signal_of(name: str) -> signal.Signals:
    """The signal `HUP` or `SIGHUP`. Raises Malformed, also for those that end a process without its doing."""
    try:
        found = signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        raise Malformed(f"there is no signal `{name}`") from None
    if found in {signal.SIGKILL, signal.SIGSTOP}:
        raise Malformed(f"`{name}` tells nobody anything")
    return found


def _opened(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (OSError, OverflowError) as error:
        raise NotFound(f"there is no process `{pid}` to signal") from error


def _send(held: int, pid: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(held, number)
    except ProcessLookupError as error:
        raise NotFound(f"the process {pid} that was to be told of new files has ended") from error
    except PermissionError as error:
        raise Denied(f"the process {pid} belongs to somebody else and can't be signalled") from error
