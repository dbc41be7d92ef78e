"""Connections to one node, and what their failures mean.

Before anything was sent a failure is `TargetDown`; after commands were sent and the connection broke,
`OutcomeUnknown`; an error reply means that this command did nothing. Nothing of the node's own words is kept but the
code they begin with: an error in a rule repeats the rule, and that can be a verifier.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio.connection import Connection as Wire
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from broker.engines.redis.settings import Address, Settings
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Problem, Unavailable
from ca.runtime.secret import Secret

T = TypeVar("T")

CONNECT_WITHIN = 10.0
"""Seconds for TCP, TLS and login together."""

_GIVEN_UP = 30.0
"""Seconds after which a connection is dead."""

_CODE = re.compile(r"[A-Z]{2,20}")
_DENIED = {"NOPERM", "NOAUTH", "WRONGPASS"}

FAILURES = (
    RedisError,
    OSError,
    TimeoutError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
)
"""Everything a call can raise; the last ones are the driver's about an answer that makes no sense."""


class Connection:
    """One connection: commands out, replies back, in one message."""

    number = 0
    """What the node calls it."""

    generation = 0
    """Which of our passwords it was made with, counted."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(self, *commands: Sequence[str | int]) -> list[Any]:
        """Send commands together; their replies in order. Raises ResponseError of the first that was refused."""
        replies: list[Any] = []
        refused: ResponseError | None = None
        async with asyncio.timeout(_GIVEN_UP):
            await self._wire.send_packed_command(self._wire.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await self._wire.read_response(disconnect_on_error=False))
                except ResponseError as error:
                    refused = refused or error
        if refused is not None:
            raise refused
        return replies

    async def together(self, *commands: Sequence[str | int]) -> list[Any]:
        """The same in MULTI … EXEC: nobody else's command comes in between. Raises ResponseError."""
        replies = (await self.run(("MULTI",), *commands, ("EXEC",)))[-1]
        if not isinstance(replies, list) or len(replies) != len(commands):
            raise ValueError("the answer to EXEC is no list of replies")
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    async def is_quiet(self) -> bool:
        """Whether it is open and nothing came that nobody asked for."""
        try:
            return not await self._wire.can_read()
        except FAILURES:
            return False

    async def close(self) -> None:
        """Break it."""
        await self._wire.disconnect(nowait=True)

    @property
    def is_open(self) -> bool:
        """As far as we know."""
        return bool(self._wire.is_connected)


class Reach:
    """A few connections to one node, opened when needed and kept; never more than `connections` at once."""

    def __init__(self, settings: Settings, address: Address, password: Callable[[], Secret]) -> None:
        self._settings, self.address, self._password = settings, address, password
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Connection] = []
        self._open = set[Connection]()
        self._generation = 0

    def __str__(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on one connection. Raises TargetDown, OutcomeUnknown, Problem."""
        async with self._slots:
            connection = await self._take()
            try:
                answer = await work(connection)
            except FAILURES as error:
                await self._keep(connection, well=isinstance(error, ResponseError))
                raise refusal(error) from None
            except Problem:
                await self._keep(connection, well=True)
                raise
            except BaseException:
                await self._keep(connection, well=False)
                raise
            await self._keep(connection, well=True)
            return answer

    async def ready(self) -> None:
        """Learn that it answers, so that what follows is sent to somebody. Raises TargetDown."""
        try:
            await self.run(lambda connection: connection.run(("TIME",)))
        except OutcomeUnknown:
            raise TargetDown(f"the target at `{self}` does not answer") from None

    async def admits(self, user: str, password: Secret) -> bool:
        """Whether a login opens. Raises TargetDown: it could not be asked."""
        connection = await self.log_in(user, password)
        if connection is not None:
            await connection.close()
        return connection is not None

    async def log_in(self, user: str, password: Secret) -> Connection | None:
        """Log in as somebody else; None when the node refuses. Raises TargetDown: it could not be asked."""
        try:
            return await self._connect(user, password)
        except AuthenticationError:
            return None
        except FAILURES as error:
            raise TargetDown(f"the target at `{self}` could not be asked ({type(error).__name__})") from None

    def numbers(self) -> set[int]:
        """What the node calls our open connections."""
        return {connection.number for connection in self._open}

    def renew(self) -> None:
        """Use no connection again that was made before."""
        self._generation += 1

    async def close(self) -> None:
        """Break every idle connection; those at work break when their slot is given back."""
        self.renew()
        while self._idle:
            await self._drop(self._idle.pop())

    async def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        await connection.close()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.generation == self._generation and await connection.is_quiet():
                return connection
            await self._drop(connection)
        generation = self._generation
        try:
            connection = await self._connect(self._settings.user, self._password())
        except AuthenticationError:
            raise TargetDown(f"the target at `{self}` refused our own login") from None
        except FAILURES as error:
            raise TargetDown(f"the target at `{self}` can't be reached ({type(error).__name__})") from None
        connection.generation = generation
        self._open.add(connection)
        try:
            (connection.number,) = await connection.run(("CLIENT", "ID"))
        except FAILURES:
            await self._drop(connection)
            raise TargetDown(f"the target at `{self}` broke off while we greeted it") from None
        return connection

    async def _connect(self, user: str, password: Secret) -> Connection:
        said: dict[str, Any] = {
            "host": self.address.host,
            "port": self.address.port,
            "username": user,
            "password": password.reveal(),
            "protocol": 2,
            "decode_responses": True,
            "encoding_errors": "replace",
            "socket_timeout": _GIVEN_UP,
            "socket_connect_timeout": CONNECT_WITHIN,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
        }
        encryption, authorities = self._settings.encryption, self._settings.tls_ca
        if encryption != "off":
            said |= {"ssl_ca_certs": None if authorities is None else str(authorities)}
            said |= {"ssl_cert_reqs": "required" if encryption == "verify" else "none"}
            said |= {"ssl_check_hostname": encryption == "verify"}
        wire: Wire = (Wire if encryption == "off" else SSLConnection)(**said)
        async with asyncio.timeout(CONNECT_WITHIN):
            await wire.connect()  # type: ignore[no-untyped-call]
        return Connection(wire)

    async def _keep(self, connection: Connection, *, well: bool) -> None:
        if well and connection.is_open and connection.generation == self._generation:
            self._idle.append(connection)
        else:
            await self._drop(connection)


def refusal(error: BaseException) -> Problem:
    """What a failure of a command means, as far as its code alone tells."""
    if not isinstance(error, ResponseError):
        return OutcomeUnknown("the connection to the target broke before it answered")
    code = code_of(error)
    if code in _DENIED:
        return Unavailable(f"the target refused: our own user lacks a right ({code})")
    return Unavailable(f"the target refused ({code})")


def code_of(error: ResponseError) -> str:
    """The word an error reply begins with; the driver keeps some of them as a type instead."""
    match = _CODE.match(str(error))
    return match[0] if match is not None else type(error).__name__
