"""`ca.runtime.bell` by LISTEN and NOTIFY, on one connection that does nothing else.

A word is the random name of whoever said it, so nobody wakes himself. Each time the connection is made `heard` is
called: what was said while there was none is not said again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ca.errors import Problem
from ca.runtime import log
from ca.runtime.bell import PAUSE, Pull
from ca.runtime.clock import Clock
from ca.runtime.leaving import still_wanted
from ca.runtime.postgres_session import Door
from ca.runtime.postgres_unit import FAILURES, Connection
from ca.runtime.process import Wake, task

AGAIN = 1.0
"""Seconds until a connection that broke is made anew."""

BEAT = 10.0
"""Seconds after which a connection that said nothing is tried: one that is dead must not stay silent for ever."""

_NAME = re.compile(r"[a-z]{1,40}")
_log = log.get(__name__)


@asynccontextmanager
async def ringing(door: Door, name: str, heard: Callable[[], object], clock: Clock) -> AsyncIterator[Pull]:
    """Carry words on the channel `sojourn_<name>` while the block runs."""
    assert _NAME.fullmatch(name), "an identifier of ours"
    bell = _Bell(door, f"sojourn_{name}", heard, clock)
    async with task(f"bell {name}", bell.hold):
        yield bell.said.set


class _Bell:
    def __init__(self, door: Door, channel: str, heard: Callable[[], object], clock: Clock) -> None:
        self._door, self._channel, self._heard, self._clock = door, channel, heard, clock
        self._own = secrets.token_hex(8)
        self.said = Wake()

    async def hold(self) -> None:
        """For ever."""
        while True:
            try:
                await self._carry(await self._door.open(name="sojourn bell"))
            except (*FAILURES, Problem) as error:
                _log.warning("others over this store are not heard for a moment", reason=type(error).__name__)
            still_wanted()
            await self._clock.sleep(AGAIN)

    async def _carry(self, connection: Connection) -> None:
        try:
            await connection.add_listener(self._channel, self._hear)
            connection.add_termination_listener(lambda _: self.said.set())  # so that a break is found at once
            self._heard()
            self.said.set()  # what was rung meanwhile
            while True:
                if await self._rung():
                    await self._clock.sleep(PAUSE)
                    await connection.execute("SELECT pg_notify($1, $2)", self._channel, self._own)
                else:
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    async def _rung(self) -> bool:
        try:
            async with asyncio.timeout(BEAT):
                await self.said.wait()
        except TimeoutError:
            return False
        return True

    def _hear(self, _connection: object, _pid: int, _channel: str, who: object) -> None:
        if who != self._own:
            self._heard()
