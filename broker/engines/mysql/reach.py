"""Connections to one endpoint, and what their failures mean.

Before anything was sent a failure is `TargetDown`; after a statement was sent and the connection broke,
`OutcomeUnknown`; an answer with an error code means that this statement did nothing. Nothing of the server's own words
is kept: they can hold the statement, and that a verifier.

A server that isn't who we think may ask its client for the password in clear (`mysql_clear_password`, `dialog`) or for
a file; neither is ever given.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Never, TypeVar

import asyncmy
from asyncmy.errors import MySQLError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.engines.mysql.endpoint import Endpoint
from broker.engines.mysql.principal import ENDED, TOO_LATE
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Conflict, Problem, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

T = TypeVar("T")

CONNECT_WITHIN = 10
"""Seconds for TCP, TLS and login together."""

_GIVEN_UP = 45
"""Seconds after which a connection is dead."""

_FRESH = 1.0
"""Seconds for which a connection that answered is believed to be open; then it is asked first."""

FAILURES = (
    MySQLError,
    OSError,
    TimeoutError,
    EOFError,
    struct.error,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""Everything a call can raise; the last ones are the driver's about an answer that makes no sense."""

_BROKEN = frozenset({1053, 1077, 1079, 1080, 1152, 1153, 1154, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 3169, 4031})
NO_SUCH_USER = 1396
"""CREATE of one that exists, or anything else of one that does not."""

_DENIED = frozenset({1044, 1045, 1227, 1142, 1143, 1370, 1410, 1698})

LOGIN_REFUSED = frozenset({1045, 1698, 4151, 3118, 1226, 1203})
"""Wrong password, no password to log in by, locked (MariaDB, MySQL), and limits of the user's own."""

_OURS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES', SESSION time_zone = '+00:00',"
    " SESSION lock_wait_timeout = 5, SESSION autocommit = 1"
)


class Refusing:
    """A way of logging in that would hand our password to whoever asks."""

    def __init__(self, connection: object) -> None:
        """For the driver; what it is for does not matter."""

    def authenticate(self, packet: object) -> Never:  # noqa: ARG002 - the driver's form
        """Never."""
        raise MySQLError(2059, "a way of logging in that shows the password")


class Signing:
    """MariaDB's `ed25519`, with the password as the seed it is when we made it; the driver would need a library more.

    The driver calls us where nothing can be awaited: we send the proof, and whoever connects reads the answer.
    """

    def __init__(self, password: Secret) -> None:
        self._password = password
        self._wire: Any = None

    def __call__(self, wire: Any) -> Signing:
        """The driver's way to make a plug-in for a connection."""
        self._wire = wire
        return self

    def authenticate(self, packet: Any) -> None:
        """Sign what the server wants signed."""
        seed, wire = self._password.reveal().encode(), self._wire
        if len(seed) != 32 or wire is None:
            raise MySQLError(2059, "not a password of the kind ed25519")
        wire.write_packet(Ed25519PrivateKey.from_private_bytes(seed).sign(packet.read_all()))

    async def finish(self) -> None:
        """Read the server's answer, if it asked us. Raises MySQLError."""
        if self._wire is not None:
            (await self._wire.read_packet()).check_error()


_NEVER = {"mysql_clear_password": Refusing, "dialog": Refusing, "mysql_old_password": Refusing}


class Connection:
    """One connection: texts out, rows back."""

    heard = 0.0
    """Seconds of boot time at which it last answered."""

    generation = 0
    """Which of our passwords it was made with, counted."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire

    @property
    def number(self) -> int:
        """What the server called this connection when it greeted us."""
        return int(self._wire.thread_id())

    async def run(self, text: str) -> Sequence[tuple[Any, ...]]:
        """Send one packet; the rows of its first statement. Raises MySQLError and the like (`FAILURES`)."""
        async with self._wire.cursor() as cursor:
            await cursor.execute(text)
            rows = await cursor.fetchall()
            while await cursor.nextset():
                pass
        return list(rows or ())

    async def answers(self) -> bool:
        """Whether the server still listens."""
        try:
            await self.run("DO 0")
        except FAILURES:
            return False
        return True

    def close(self) -> None:
        """Break it."""
        self._wire.close()

    @property
    def is_open(self) -> bool:
        """As far as we know."""
        return bool(self._wire.connected)


class Reach:
    """A few connections to one endpoint, opened when needed and kept; never more than `size` at once."""

    def __init__(self, endpoint: Endpoint, clock: Clock, size: int) -> None:
        self.endpoint, self._clock = endpoint, clock
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._open = set[Connection]()
        self._generation = 0
        self._offset: timedelta | None = None
        self._mariadb: bool | None = None

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on one connection. Raises TargetDown, OutcomeUnknown, Problem."""
        async with self._slots:
            connection = await self._take()
            try:
                answer = await work(connection)
            except FAILURES as error:
                self._keep(connection, well=code_of(error) is not None)
                raise refusal(error) from None
            except Problem:
                self._keep(connection, well=True)
                raise
            except BaseException:
                self._keep(connection, well=False)
                raise
            self._keep(connection, well=True)
            return answer

    async def offset(self) -> timedelta:
        """How far the server's clock is ahead of ours, as last measured. Raises TargetDown."""
        if self._offset is None:
            await self.run(self.measure)
        assert self._offset is not None
        return self._offset

    async def is_mariadb(self) -> bool:
        """Whether it is MariaDB rather than MySQL. Raises TargetDown."""
        if self._mariadb is None:
            await self.run(self.measure)
        return bool(self._mariadb)

    async def measure(self, connection: Connection) -> None:
        """Compare the clocks, half of the journey is ours to guess; and learn which server it is."""
        before = self._clock.now()
        ((theirs, version),) = await connection.run("SELECT UTC_TIMESTAMP(6), VERSION()")
        if not isinstance(theirs, datetime):
            raise ValueError("the server's time is no time")  # noqa: TRY004 - an answer that makes no sense
        self._offset = theirs.replace(tzinfo=UTC) - (before + (self._clock.now() - before) / 2)
        self._mariadb = "mariadb" in str(version).lower()

    def numbers(self) -> set[int]:
        """What the server calls our open connections."""
        return {connection.number for connection in self._open}

    def close(self) -> None:
        """Break every idle connection; those at work break when their slot is given back."""
        self._generation += 1
        while self._idle:
            self._drop(self._idle.pop())

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if self._clock.boot() - connection.heard < _FRESH or await connection.answers():
                return connection
            self._drop(connection)
        generation = self._generation
        connection = await connect(self.endpoint)
        connection.generation = generation
        self._open.add(connection)
        try:
            await connection.run(_OURS)
            await self.measure(connection)
        except FAILURES:
            self._drop(connection)
            raise TargetDown(f"the target at `{self.endpoint}` broke off while we greeted it") from None
        return connection

    def _keep(self, connection: Connection, *, well: bool) -> None:
        if well and connection.is_open and connection.generation == self._generation:
            connection.heard = self._clock.boot()
            self._idle.append(connection)
        else:
            self._drop(connection)


async def connect(endpoint: Endpoint) -> Connection:
    """Log in as ourselves. Raises TargetDown: nothing that changes anything was sent."""
    try:
        return await _connect(endpoint, endpoint.user, endpoint.password())
    except FAILURES as error:
        code = code_of(error)
        if code is None:
            raise TargetDown(f"the target at `{endpoint}` can't be reached ({type(error).__name__})") from None
        raise TargetDown(f"the target at `{endpoint}` refused our own login ({code})") from None


async def log_in(endpoint: Endpoint, user: str, password: Secret) -> Connection | None:
    """Log in as somebody else; None when the server refuses. Raises TargetDown: it could not be asked."""
    try:
        return await _connect(endpoint, user, password)
    except FAILURES as error:
        if code_of(error) in LOGIN_REFUSED:
            return None
        raise TargetDown(f"the target at `{endpoint}` could not be asked ({type(error).__name__})") from None


async def _connect(endpoint: Endpoint, user: str, password: Secret) -> Connection:
    signing = Signing(password)
    async with asyncio.timeout(CONNECT_WITHIN):
        wire = await asyncmy.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=user,
            password=password.reveal(),
            ssl=endpoint.tls,
            charset="utf8mb4",
            connect_timeout=CONNECT_WITHIN,
            read_timeout=_GIVEN_UP,
            auth_plugin_map={**_NEVER, "client_ed25519": signing},
            autocommit=None,
        )
        try:
            await signing.finish()
        except BaseException:
            wire.close()
            raise
    return Connection(wire)


def code_of(error: BaseException) -> int | None:
    """The code a server answered with; None when it is not the server's word, or one that says it breaks off."""
    code = error.args[0] if isinstance(error, MySQLError) and error.args else None
    ours = not isinstance(code, int) or 2000 <= code < 3000 or code in _BROKEN
    return None if ours else code


def refusal(error: BaseException) -> Problem:
    """What a failure of a statement means, as far as its code alone tells."""
    code = code_of(error)
    if code is None:
        return OutcomeUnknown("the connection to the target broke before it answered")
    if TOO_LATE in str(error.args[1:]):
        return Unavailable("the target saw the call only after its deadline, and did nothing")
    if ENDED in str(error.args[1:]):
        return Conflict("the principal was ended meanwhile, and stays so")
    if code in _DENIED:
        return Unavailable(f"the target refused: our own user lacks a right ({code})", mysql_error=code)
    return Unavailable(f"the target refused ({code})", mysql_error=code)
