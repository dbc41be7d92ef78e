"""Other processes of a bench: what serves runs by itself, so that its CPU seconds are its own.

A module started by `module` says one line of JSON when it is ready and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 60.0


@dataclass(slots=True)
class Other:
    """A process we started; `said` is its first line."""

    process: asyncio.subprocess.Process
    said: Any = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def resident(self) -> int:
        """Bytes of memory it has now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def hear(self) -> Any:
        """Its next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the bench ended before it answered, its error stands above")
        return json.loads(line)

    async def ask(self, question: Any) -> Any:
        """Say a line and hear one."""
        self.tell(question)
        return await self.hear()

    def tell(self, what: Any) -> None:
        """Say a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")


@asynccontextmanager
async def started(command: Sequence[str], log: BinaryIO | None = None, /, **environment: str) -> AsyncIterator[Other]:
    """Run `command` with pipes, or with what it says in `log`; when left it was asked to stop, and has."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=log or pipe, stderr=log, cwd=ROOT, env={**os.environ, **environment}, limit=2**24
    )
    try:
        yield Other(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def module(name: str, *arguments: str) -> AsyncIterator[Other]:
    """Run `python -m bench.NAME` and wait for its first line."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    async with started([sys.executable, "-m", f"bench.{name}", *arguments], PYTHONPATH=path) as other:
        other.said = await other.hear()
        yield other


def say(what: Mapping[str, Any] | Sequence[Any]) -> None:
    """In such a process: one line to whoever started it."""
    print(json.dumps(what), flush=True)


def more_descriptors() -> None:
    """Raise our own limit as far as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def heard() -> Any:
    """In such a process: the next line from whoever started it; None when there is none any more."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None
