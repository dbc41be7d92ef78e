"""PostgreSQL: a login role that is nothing but its memberships, for as long as its lease lives.

    principal.py   the texts of SQL: made, replaced, disabled, dropped
    sessions.py    cut, also those still logging in
    ending.py      access ended and verified on every endpoint; nothing left
    scram.py       the verifiers that are sent instead of passwords
    claim.py       whose target this is
    check.py       what `doctor` and `target check` prove
    reach.py       connections, and what their failures mean

What a holder can leave behind: a password of its own for as long as it may log in, objects in schemas where PUBLIC may
create (the check looks for those), prepared transactions where they are enabled. All of it goes with the principal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from urllib.parse import quote

import asyncpg

from broker.engines.passwords import new_password
from broker.engines.postgres import principal
from broker.engines.postgres.check import Examination
from broker.engines.postgres.claim import adopt, claim
from broker.engines.postgres.ending import clean_up, end_access, shut
from broker.engines.postgres.reach import Connection, Reach
from broker.engines.postgres.scram import ROUNDS, verifier
from broker.engines.postgres.settings import RoleSettings, Settings, role_settings
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Lent, Making
from broker.errors import ClockUntrusted
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

__all__ = ["Postgres", "RoleSettings", "Settings", "open_engine"]


_WORTH_A_THREAD = 256
"""Rounds from which hashing would hold up everybody else on the event loop."""


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Postgres]:
    """The engine of one target. Nothing is connected yet: a target that is down at start comes later."""
    clock = lent.clock
    reaches = [Reach(endpoint, clock, settings.connections) for endpoint in settings.endpoints()]
    try:
        yield Postgres(settings, clock, reaches[0], reaches[1:])
    finally:
        for reach in reaches:
            reach.close()
        await clock.sleep(0)  # transports close in a turn of their own


class Postgres:
    """One PostgreSQL server, with its standbys."""

    kind = "postgres"
    making = Making.CREATE_ONLY

    def __init__(self, settings: Settings, clock: Clock, primary: Reach, standbys: Sequence[Reach]) -> None:
        self._settings, self._clock, self._primary, self._standbys = settings, clock, primary, standbys

    def plan(self, role: Role, name: str) -> Handle:
        """Name and groups; the same whoever computes it."""
        chosen = role_settings(role)
        for identifier in (name, *chosen.groups):
            principal.identifier(identifier)
        facts = {"groups": list(chosen.groups), "secret_kind": chosen.secret_kind or self._settings.secret_kind}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """New logins end at once, sessions are cut; without us VALID UNTIL ends new logins and nothing a session."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=1,
            open_sessions=OpenSessions.CUT,
            open_sessions_within=2,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=int(role.ttl.total_seconds()),
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """One message, one transaction, one round trip."""
        offset, password = await self._offset(), new_password()
        text = principal.create(
            handle.name,
            await self._verifier(handle, password),
            until=until + offset,
            deadline=deadline + offset,
            groups=role_settings(role).groups,
            sessions=role_settings(role).sessions,
        )
        await self._primary.run(lambda connection: connection.execute(text))
        return self._issued(handle, password)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another verifier, once the old password opens nothing and whoever it let in is cut.

        In this order: a session still open could set a password of its own over ours, and keep the door.
        """
        offset, password = await self._offset(), new_password()
        text = principal.replace(handle.name, await self._verifier(handle, password), until + offset, deadline + offset)
        await shut(self._primary, self._standbys, self._clock, handle.name, deadline + offset)
        await self._primary.run(lambda connection: connection.execute(text))
        return self._issued(handle, password)

    async def renew(self, handle: Handle, until: datetime) -> None:
        """Move VALID UNTIL."""
        text = principal.renew(handle.name, until + await self._offset())
        await self._primary.run(lambda connection: connection.execute(text))

    async def occupy(self, handle: Handle) -> None:
        """CREATE ROLE … NOLOGIN: waits for a create in flight, then answers for certain."""
        await self._primary.run(lambda connection: _occupy(connection, principal.occupy(handle.name)))

    async def end_access(self, handle: Handle) -> AccessEnded:
        """See `ending.py`."""
        return await end_access(self._primary, self._standbys, self._clock, handle.name)

    async def clean_up(self, handle: Handle) -> None:
        """See `ending.py`."""
        await clean_up(self._primary, handle.name)

    async def names(self, prefix: str) -> Sequence[str]:
        """Every role with our prefix; the clocks are compared again on the way."""
        return await self._primary.run(lambda connection: self._names(connection, prefix))

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """See `claim.py`."""
        return await self._primary.run(lambda connection: claim(connection, installation, incarnation))

    async def adopt(self, installation: str, incarnation: str) -> None:
        """See `claim.py`."""
        await self._primary.run(lambda connection: adopt(connection, installation, incarnation))

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        return await Examination(self, self._primary, self._settings, self._clock).run(roles, prefix)

    async def _offset(self) -> timedelta:
        offset = await self._primary.offset()
        if abs(offset) > self._settings.clock_limit:
            raise ClockUntrusted(
                f"the target's clock is {offset.total_seconds():.0f} s from ours, more than the limit allows"
            )
        return offset

    async def _verifier(self, handle: Handle, password: str) -> str:
        rounds = ROUNDS[str(handle.facts["secret_kind"])]
        if rounds < _WORTH_A_THREAD:
            return verifier(password, rounds)
        return await asyncio.to_thread(verifier, password, rounds)  # OpenSSL lets go of the interpreter meanwhile

    def _issued(self, handle: Handle, password: str) -> Issued:
        at, where = self._primary.endpoint, quote(self._settings.database, safe="")
        mode = {"off": "", "require": "?sslmode=require", "verify": "?sslmode=verify-full"}[self._settings.encryption]
        host = f"[{at.host}]" if ":" in at.host else at.host
        url = f"postgresql://{handle.name}:{password}@{host}:{at.port}/{where}{mode}"
        fields: dict[str, str | int] = {
            "host": at.host,
            "port": at.port,
            "database": self._settings.database,
            "username": handle.name,
        }
        return Issued(fields=fields, secret={"password": Secret(password), "url": Secret(url)})

    async def _names(self, connection: Connection, prefix: str) -> list[str]:
        await self._primary.measure(connection)
        return [row["name"] for row in await connection.fetch(principal.NAMES, prefix, len(prefix))]


async def _occupy(connection: Connection, text: str) -> None:
    try:
        await connection.execute(text)
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return
