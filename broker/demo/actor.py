"""One of the demo's agents as its parent sees it: a process that says what happens to it, a line of JSON at a time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker.up import Up
from ca.errors import Unavailable

_PATIENCE = 60.0


@dataclass(slots=True)
class Actor:
    """A running agent."""

    process: asyncio.subprocess.Process
    code: int | None = None

    @classmethod
    @asynccontextmanager
    async def start(cls, part: str, up: Up, uid: int | None) -> AsyncIterator[Actor]:
        """Start `python -m broker.demo.agent`; when left it has ended."""
        drop = [] if uid is None else [str(uid)]
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "SPIFFE_ENDPOINT_SOCKET": up.workload_api,
            "SOJOURN_BROKER": up.address,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker.demo.agent",
            part,
            *drop,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        actor = cls(process)
        try:
            yield actor
        finally:
            await actor._end()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def hears(self, what: str) -> dict[str, Any]:
        """The next thing the agent says, which has to be `what`. Raises Unavailable: it ended, or said another."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await self.process.stdout.readline()
        except TimeoutError as error:
            raise Unavailable(f"the agent did not come to `{what}` within {_PATIENCE:.0f} s") from error
        if not line:
            raise Unavailable(f"the agent ended before it came to `{what}`")
        said: dict[str, Any] = json.loads(line)
        if said["what"] != what:
            raise Unavailable(f"the agent came to `{said['what']}` instead of `{what}`: {said.get('error', '')}")
        return said

    async def say(self, word: str) -> None:
        """Tell the agent to go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        await self.process.stdin.drain()

    def kill(self) -> None:
        """SIGKILL: nothing of the agent's own runs after this."""
        self.process.kill()

    async def _end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                self.code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            self.code = await self.process.wait()
