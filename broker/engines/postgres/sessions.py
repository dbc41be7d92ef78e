"""Sessions of a principal: cut, counted, none left, not even one that is still logging in.

A backend that passed the NOLOGIN check is for a moment in no activity view, and an unprivileged client can stretch that
moment at will with `post_auth_delay` (traps 5). It can't hide that it holds locks: every backend does from before its
authentication until after its activity row is written. So, once NOLOGIN is committed, every backend that holds a lock
and has no activity row is a *suspect*: it logged in before, or never will. Whoever becomes a suspect later passed the
check later, and was refused. Each suspect must show itself (as ours, and is cut; as somebody else, and is left alone)
or be gone; one that stays hidden for longer than `GRACE` is terminated. A non-superuser is refused that for backends
that have not authenticated yet and for superusers: neither can be ours, so a refusal clears the suspect.

A standby has one process more that holds a lock and, to a non-superuser, has no name: the one that replays. It is no
backend, so `pg_terminate_backend` does nothing to it and says so; whoever still holds locks after that is a bystander,
and is known to be one for as long as that server runs as a standby.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from broker.engines.postgres.guard import Connection
from broker.errors import NotYet
from ca.runtime.clock import Clock

GRACE = 1.0
"""Seconds an honest login may stay hidden; then it is ended, whoever it is."""

PATIENCE = 15.0
"""Seconds after which an ending is reported as not yet verified, to be tried again."""

_LOCKS = "SELECT DISTINCT pid FROM pg_locks WHERE pid IS NOT NULL AND pid <> pg_backend_pid()"
_ACTIVITY = """
SELECT a.pid, a.usesysid, a.backend_type, a.usesysid IS NOT NULL AND r.oid IS NULL AS orphan
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid"""


_SINCE = "SELECT pg_postmaster_start_time() AS since, pg_is_in_recovery() AS standby"


@dataclass(slots=True)
class Bystanders:
    """Processes of one standby that are no backends, while it is the same server and still a standby."""

    pids: set[int] = field(default_factory=set)
    _since: datetime | None = None

    async def recall(self, connection: Connection) -> None:
        """Forget them when it was started again or promoted: their numbers may be others' now."""
        row = await connection.fetchrow(_SINCE)
        since = row["since"] if row is not None and row["standby"] else None
        if since is None or since != self._since:
            self.pids.clear()
        self._since = since

    def learn(self, pids: set[int]) -> None:
        """Keep them, on a standby only."""
        if self._since is not None:
            self.pids |= pids


@dataclass(slots=True)
class _Look:
    """What one look at the server saw."""

    ours: set[int]
    hidden: set[int]


@dataclass(slots=True)
class Cut:
    """One ending of all sessions of one role on one server.

    `oid` None means the role is gone already, perhaps dropped by hand under an open session: then the sessions of roles
    that are no more are the ones to cut. `spared` are processes that are left alone: our own, when the role is.
    """

    connection: Connection
    oid: int | None
    clock: Clock
    spared: frozenset[int] = frozenset()
    bystanders: Bystanders | None = None
    cut: set[int] = field(default_factory=set)
    _no_backend: set[int] = field(default_factory=set)
    _suspects: set[int] | None = field(default=None)

    async def run(self) -> int:
        """Cut until two looks, one statement apart, see nothing; answers how many sessions were cut.

        Raises:
            NotYet: something is still there after `PATIENCE`.
        """
        started, empty, pause = self.clock.boot(), 0, 0.001
        if self.bystanders is not None:
            await self.bystanders.recall(self.connection)
        while empty < 2:
            look = await self._look()
            if self._suspects is None:
                self._suspects = set(look.hidden)
            if self.bystanders is not None:
                self.bystanders.learn(self._no_backend & look.hidden)
            self._suspects &= look.hidden - self._no_backend
            waited = self.clock.boot() - started
            condemned = look.ours | (self._suspects if waited >= GRACE else set())
            for pid in sorted(condemned):
                await self._terminate(pid)
            if not look.ours and not self._suspects:
                empty += 1
                continue
            empty = 0
            if waited >= PATIENCE:
                raise NotYet(f"{len(look.ours | self._suspects)} sessions could not be ended yet")
            await self.clock.sleep(pause)
            pause = min(pause * 2, 0.05)
        return len(self.cut)

    async def once(self) -> None:
        """End every session that shows itself, without looking whether it went."""
        for pid in sorted((await self._look()).ours):
            await self._terminate(pid)

    async def _look(self) -> _Look:
        locks = {row["pid"] for row in await self.connection.fetch(_LOCKS)}
        rows = await self.connection.fetch(_ACTIVITY)  # after the locks: who shows itself in between is no suspect
        ours = {row["pid"] for row in rows if (row["orphan"] if self.oid is None else row["usesysid"] == self.oid)}
        seen = {row["pid"] for row in rows if row["usesysid"] is not None or not _may_be_a_login(row["backend_type"])}
        known = self.spared if self.bystanders is None else self.spared | self.bystanders.pids
        return _Look(ours - self.spared, locks - seen - known)

    async def _terminate(self, pid: int) -> None:
        try:
            if await self.connection.fetchval("SELECT pg_terminate_backend($1)", pid):
                self.cut.add(pid)
            elif self._suspects is not None:
                self._no_backend.add(pid)  # gone meanwhile, or none
        except asyncpg.InsufficientPrivilegeError:
            if self._suspects is not None:
                self._suspects.discard(pid)


def _may_be_a_login(backend_type: str | None) -> bool:
    return backend_type is None or backend_type == "client backend"
