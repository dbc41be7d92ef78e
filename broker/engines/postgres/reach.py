"""Connections to one endpoint, and what its failures mean.

What an error says decides what may be believed (`engines/protocol.py`): before anything was sent it is `TargetDown`;
after a statement was sent and the connection broke, `OutcomeUnknown`; an answer with an error code means the statement
was rolled back. Nothing of the server's own words is kept: its context can hold the statement, and that a verifier.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from broker.engines.postgres.guard import AskedForPassword, Connection, log_in
from broker.engines.postgres.sessions import Bystanders
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Conflict, NotFound, Problem, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

T = TypeVar("T")

CONNECT_WITHIN = 10.0
"""Seconds for TCP, TLS and login together."""

SERVER_STOPS = 30
"""Seconds after which the server itself gives a statement up; it is then rolled back for certain."""

_GIVEN_UP = 45.0
"""Seconds after which a connection is dead: the server would have stopped the statement long before."""

TOO_LATE = "SJ001"
"""The error code our own statements raise when they arrive after their deadline."""

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything a call can raise; the internal one when the server's farewell arrives just before our statement leaves."""

_BROKEN = frozenset({"57P01", "57P02", "57P03", "57P05"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server listens and as whom we log in."""

    host: str
    port: int
    database: str
    user: str
    password: Callable[[], Secret] = field(repr=False)
    tls: ssl.SSLContext | bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Reach:
    """A few connections to one endpoint, opened when needed and kept; never more than `size` at once."""

    def __init__(self, endpoint: Endpoint, clock: Clock, size: int) -> None:
        self.endpoint, self._clock = endpoint, clock
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._outdated: set[Connection] = set()
        self.bystanders = Bystanders()
        self._offset: timedelta | None = None

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on one connection. Raises TargetDown, OutcomeUnknown, Problem."""
        async with self._slots:
            connection = await self._take()
            try:
                answer = await work(connection)
            except FAILURES as error:
                self._keep(connection, well=isinstance(error, asyncpg.PostgresError))
                raise _refusal(error) from None
            except BaseException:
                self._keep(connection, well=False)
                raise
            self._keep(connection, well=True)
            return answer

    async def elsewhere(self, database: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` in another database of the same server. Raises TargetDown, OutcomeUnknown, Problem."""
        connection = await connect(self.endpoint, database)
        self._open.add(connection)
        try:
            return await work(connection)
        except FAILURES as error:
            raise _refusal(error) from None
        finally:
            self._drop(connection)

    async def offset(self) -> timedelta:
        """How far the server's clock is ahead of ours, as last measured. Raises TargetDown."""
        if self._offset is None:
            await self.run(self.measure)
        assert self._offset is not None
        return self._offset

    async def measure(self, connection: Connection) -> None:
        """Compare the clocks; half of the journey is ours to guess."""
        before = self._clock.now()
        theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
        self._offset = theirs - (before + (self._clock.now() - before) / 2)

    def pids(self) -> frozenset[int]:
        """The server's processes behind our own connections."""
        return frozenset(connection.get_server_pid() for connection in self._open if not connection.is_closed())

    def close(self) -> None:
        """Break every idle connection; those at work break when their slot is given back."""
        self._outdated = set(self._open)
        while self._idle:
            self._drop(self._idle.pop())

    def _drop(self, connection: Connection) -> None:
        connection.terminate()
        self._open.discard(connection)
        self._outdated.discard(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._drop(connection)
        return await self._connect()

    async def _connect(self) -> Connection:
        connection = await connect(self.endpoint)
        self._open.add(connection)
        try:
            await self.measure(connection)
        except FAILURES:
            self._drop(connection)
            raise TargetDown(f"the target at `{self.endpoint}` broke off while we greeted it") from None
        return connection

    def _keep(self, connection: Connection, *, well: bool) -> None:
        usable = well and not connection.is_closed() and not connection.is_in_transaction()
        if usable and connection not in self._outdated:
            self._idle.append(connection)
        else:
            self._drop(connection)


_OURS = {
    "application_name": "sojourn",
    "synchronous_commit": "on",
    "lock_timeout": "5s",
    "statement_timeout": f"{SERVER_STOPS}s",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
}


async def connect(endpoint: Endpoint, database: str | None = None) -> Connection:
    """Log in as ourselves. Raises TargetDown: nothing that changes anything was sent."""
    own = endpoint.password()
    more = {"command_timeout": _GIVEN_UP, "server_settings": _OURS}
    try:
        return await knock(endpoint, database, user=endpoint.user, password=own, more=more)
    except asyncpg.PostgresError as error:
        raise TargetDown(f"the target at `{endpoint}` refused our own login ({_code(error)})") from None
    except AskedForPassword as error:
        raise TargetDown(f"the target at `{endpoint}` is not believed: {error}") from None
    except FAILURES as error:
        raise TargetDown(f"the target at `{endpoint}` can't be reached ({type(error).__name__})") from None


async def knock(
    endpoint: Endpoint,
    database: str | None = None,
    *,
    user: str,
    password: Secret | None,
    tls: ssl.SSLContext | bool | None = None,
    more: Mapping[str, Any] | None = None,
) -> Connection:
    """Log in as somebody; a password is never sent in clear. Raises one of `FAILURES`."""
    return await log_in(
        host=endpoint.host,
        port=endpoint.port,
        user=user,
        password="" if password is None else password.reveal(),
        passfile=os.devnull,
        database=database or endpoint.database,
        ssl=endpoint.tls if tls is None else tls,
        timeout=CONNECT_WITHIN,
        **(more or {}),
    )


def _refusal(error: Exception) -> Problem:
    if not isinstance(error, asyncpg.PostgresError):
        return OutcomeUnknown("the connection to the target broke before it answered")
    code = getattr(error, "sqlstate", None) or ""
    if code in _BROKEN or code.startswith("08"):
        return OutcomeUnknown(f"the target ended our connection before it answered ({_code(error)})")
    if code == TOO_LATE:
        return Unavailable("the target saw the call only after its deadline, and did nothing")
    if code in {"42710", "23505"}:
        return Conflict("the target has a principal of that name already")
    if code == "42704":
        return NotFound("the target has no principal or group of that name")
    return Unavailable(f"the target refused ({_code(error)})", sqlstate=code)


def _code(error: asyncpg.PostgresError) -> str:
    return f"{getattr(error, 'sqlstate', None) or '?'} {type(error).__name__}"
