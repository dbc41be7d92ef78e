"""Connections to a store on PostgreSQL: what is asked of a server before a word of it is believed.

Every connection, the first and each later one, is refused when what we are told to be durable would not be (`fsync`,
`synchronous_commit`; traps 20), when the server takes no writes, or when a pooler answers in its place: what is
prepared or listened for on one connection must still be there for the next statement (traps 28). A pooler gives itself
away by the process number it hands out at login, which is not that of the process that answers.

An *incarnation* is (system identifier, timeline, database). A restore or the promotion of a replica changes it, and
rows that were told to be durable may be gone: what this process remembers is then worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from ca.errors import Problem, Unavailable
from ca.runtime import log
from ca.runtime.postgres_address import Address
from ca.runtime.postgres_unit import FAILURES, Connection

CONNECT_WITHIN = 10.0
"""Seconds for TCP, TLS and login together."""

GIVEN_UP = 75.0
"""Seconds after which a call is over: the server would have stopped the statement long before."""

SETTINGS = {
    "application_name": "sojourn",
    "default_transaction_isolation": "read committed",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "5s",  # one of us that is frozen must not hold up the others
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "standard_conforming_strings": "on",
    "jit": "off",
}

_OLDEST = 130000
_DURABLE = frozenset({"on", "remote_apply"})
_FACTS = """
    SELECT pg_backend_pid() AS pid,
           current_setting('server_version_num') AS version,
           current_setting('server_encoding') AS encoding,
           current_setting('fsync') AS fsync,
           current_setting('full_page_writes') AS whole_pages,
           current_setting('synchronous_commit') AS durable,
           pg_is_in_recovery() AS standby,
           (SELECT system_identifier::text FROM pg_control_system()) AS system,
           (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS database,
           CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline
"""
_log = log.get(__name__)


class Unsafe(Problem):
    """The store would lose what it calls durable, or something stands between us and it."""

    code = "unsafe-store"


class Incarnation(NamedTuple):
    """Which history of which store; equal as long as nothing that was durable can have gone."""

    system: str
    timeline: str
    database: str

    def __str__(self) -> str:
        return f"system {self.system}, timeline {int(self.timeline, 16)}, database {self.database}"


@dataclass(slots=True, eq=False)
class Door:
    """Opens connections, and knows the incarnation it has opened them to.

    `on_change` hears that it is another one than before; it is not meant to return.
    """

    address: Address
    on_change: Callable[[BaseException], object]
    incarnation: Incarnation | None = None

    async def open(self, *, name: str = "sojourn") -> Connection:
        """A connection that was looked at.

        Raises:
            Unavailable: nobody answers, or there is another incarnation.
            Unsafe: see above.
            Malformed: a file or secret the address names can't be read.
        """
        options: dict[str, Any] = {
            **self.address.options(),
            "timeout": CONNECT_WITHIN,
            "command_timeout": GIVEN_UP,
            "target_session_attrs": SessionAttribute.primary,
            "statement_cache_size": 512,
            "max_cached_statement_lifetime": 0,
            "server_settings": {**SETTINGS, "application_name": name},
        }
        try:
            connection: Connection = await asyncpg.connect(**options)
        except FAILURES as error:
            raise self._not_open(error) from None
        try:
            await self._look(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _look(self, connection: Connection) -> None:
        try:
            facts = await connection.fetchrow(_FACTS)
        except FAILURES as error:
            raise self._not_open(error) from None
        assert facts is not None
        if facts["standby"]:
            raise Unavailable(f"the store `{self.address}` is a standby and takes no writes")
        _check(facts, connection.get_server_pid(), str(self.address))
        found = Incarnation(facts["system"], facts["timeline"], facts["database"])
        if self.incarnation is not None and found != self.incarnation:
            self._changed(found)
        self.incarnation = found
        try:  # pinned, so that a reload of the server's settings can't take it away from this session
            await connection.execute(f"SET synchronous_commit = {facts['durable']}")
        except FAILURES as error:
            raise self._not_open(error) from None

    def _changed(self, found: Incarnation) -> None:
        lost = Unavailable(f"the store was {self.incarnation} and is now {found}: what was durable may be gone")
        self.on_change(lost)
        raise lost

    def _not_open(self, error: BaseException) -> Problem:
        """What the server says of a login holds no secret, but may hold what somebody else chose: only its code."""
        code = getattr(error, "sqlstate", None)
        if code == "08P01":
            return Unsafe(f"the store `{self.address}` refuses our settings: expected PostgreSQL itself, not a pooler")
        if isinstance(error, asyncpg.PostgresError) and code and code[:2] in {"28", "3D"}:
            return Unavailable(f"the store `{self.address}` refused our login ({code} {type(error).__name__})")
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            return Unavailable(f"the store `{self.address}` can't be reached: a standby answers and takes no writes")
        name = f"{code} {type(error).__name__}" if code else type(error).__name__
        return Unavailable(f"the store `{self.address}` can't be reached ({name})")


def _check(facts: asyncpg.Record, told: int, address: str) -> None:
    if facts["pid"] != told:
        raise Unsafe(f"the store `{address}` is behind a pooler: expected the address of PostgreSQL itself")
    if int(facts["version"]) < _OLDEST:
        raise Unsafe(f"the store `{address}` is too old: expected PostgreSQL 13 or newer")
    if facts["encoding"] != "UTF8":
        raise Unsafe(f"the store `{address}` has the encoding {facts['encoding']}: expected UTF8")
    if facts["fsync"] != "on" or facts["whole_pages"] != "on":
        raise Unsafe(f"the store `{address}` runs without `fsync` or `full_page_writes`: expected both to be on")
    if facts["durable"] not in _DURABLE:
        raise Unsafe(f"the store `{address}` has `synchronous_commit` {facts['durable']}: expected on or remote_apply")


async def fate(connection: Connection, xid: str, mark: int) -> str | None:
    """What became of a transaction of ours whose COMMIT was never answered: `committed`, `aborted` or not known.

    It held the advisory lock `mark` until it ended, so it has ended once the lock is ours.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", mark)
        status: str | None = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", xid)
    return status if status in {"committed", "aborted"} else None
