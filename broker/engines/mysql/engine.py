"""The verbs of the engine `mysql`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from asyncmy.errors import MySQLError

from broker.engines.mysql import accounts, principal
from broker.engines.mysql.check import Examination
from broker.engines.mysql.claim import adopt, claim
from broker.engines.mysql.ending import clean_up, end_access, shut
from broker.engines.mysql.reach import FAILURES, NO_SUCH_USER, Connection, Reach, code_of
from broker.engines.mysql.settings import Settings, role_settings
from broker.engines.mysql.verifiers import identified, password_for
from broker.engines.passwords import OwnPassword
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Making
from broker.errors import ClockUntrusted
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Conflict, NotFound
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret


class Mysql:
    """One MySQL or MariaDB server, with its replicas."""

    kind = "mysql"
    making = Making.CREATE_ONLY

    def __init__(
        self, settings: Settings, clock: Clock, own: OwnPassword, primary: Reach, replicas: Sequence[Reach]
    ) -> None:
        self._settings, self._clock, self._own = settings, clock, own
        self._primary, self._replicas = primary, replicas

    def plan(self, role: Role, name: str) -> Handle:
        """Name and rights; the same whoever computes it."""
        said = role_settings(role)
        given = {place: list(privileges) for place, privileges in sorted(said.privileges.items())}
        facts = {"role": said.role, "privileges": given, "secret_kind": said.secret_kind or self._settings.secret_kind}
        return Handle(target=role.target, engine=self.kind, name=principal.checked(name), facts=facts)

    def guarantee(self, role: Role) -> Guarantee:  # noqa: ARG002 - the same for every role
        """New logins end at once, sessions are cut; without us nothing ends anything: the server knows no expiry."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=1,
            open_sessions=OpenSessions.CUT,
            open_sessions_within=2,
            if_down=IfDown.NOTHING_ENDS_IT,
            if_down_within=None,
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """One packet: locked, granted, unlocked. What fails in between is dropped."""
        said, offset = role_settings(role), await self._offset()
        kind, mariadb = await self._kind(handle), await self._primary.is_mariadb()
        password = password_for(kind)
        text = principal.create(
            handle.name,
            await _identified(kind, password),
            deadline=deadline + offset,
            granted=principal.grants(handle.name, said.role, said.privileges, mariadb=mariadb),
            sessions=said.sessions,
            tls=self._settings.encryption != "off",
            mariadb=mariadb,
        )
        await self._primary.run(lambda connection: _make(connection, handle.name, text))
        return self._issued(handle, password)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another verifier, once the user is locked and whoever is in is cut.

        In this order: a session still open could set a password of its own over ours, and keep the door.
        """
        limit, kind = deadline + await self._offset(), await self._kind(handle)
        password = password_for(kind)
        text = principal.replace(handle.name, await _identified(kind, password), limit)
        await shut(self._primary, self._replicas, self._clock, handle.name, limit)
        await self._primary.run(lambda connection: _or_absent(connection, text))
        return self._issued(handle, password)

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - nothing there knows it
        """Only look that it is still there: the server knows no end that could be moved."""
        if not await self._primary.run(lambda connection: connection.run(principal.hosts(handle.name))):
            raise NotFound("the target has no principal of that name")

    async def occupy(self, handle: Handle) -> None:
        """CREATE USER … ACCOUNT LOCK: waits for a create in flight, then answers for certain."""
        await self._primary.run(lambda connection: _occupy(connection, principal.occupy(handle.name)))

    async def end_access(self, handle: Handle) -> AccessEnded:
        """See `ending.py`."""
        return await end_access(self._primary, self._replicas, self._clock, principal.checked(handle.name))

    async def clean_up(self, handle: Handle) -> None:
        """See `ending.py`."""
        await clean_up(self._primary, principal.checked(handle.name))

    async def names(self, prefix: str) -> Sequence[str]:
        """Every user with our prefix; the clocks are compared again on the way."""
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

    async def change_password(self, account: str, password: Secret) -> None:
        """See `accounts.py`."""
        kind = self._settings.secret_kind or await self._usual_kind()
        await self._primary.run(lambda connection: accounts.change_password(connection, account, password, kind))

    async def opens(self, account: str, password: Secret) -> bool:
        """See `accounts.py`."""
        return await accounts.opens(self._primary.endpoint, account, password)

    async def cut_sessions(self, account: str) -> int:
        """On every endpoint; when the account is our own, all but our connections."""
        reaches = (self._primary, *self._replicas)
        return sum([await accounts.cut_sessions(reach, self._clock, account) for reach in reaches])

    @property
    def account(self) -> str:
        """Whom we log in as."""
        return self._settings.user

    def log_in_with(self, password: Secret | None) -> None:
        """Log in with this one from now on; connections at work are given up when they are done."""
        self._own.become(password)
        for reach in (self._primary, *self._replicas):
            reach.close()

    async def _offset(self) -> timedelta:
        offset = await self._primary.offset()
        if abs(offset) > self._settings.clock_limit:
            raise ClockUntrusted(
                f"the target's clock is {offset.total_seconds():.0f} s from ours, more than the limit allows"
            )
        return offset

    async def _kind(self, handle: Handle) -> str:
        return str(handle.facts.get("secret_kind") or await self._usual_kind())

    async def _usual_kind(self) -> str:
        return "native" if await self._primary.is_mariadb() else "sha2"

    def _issued(self, handle: Handle, password: str) -> Issued:
        at, database = self._primary.endpoint, self._settings.database
        host = f"[{at.host}]" if ":" in at.host else at.host
        where = "" if database is None else f"/{quote(database, safe='')}"
        mode = {"off": "", "require": "?ssl-mode=REQUIRED", "verify": "?ssl-mode=VERIFY_IDENTITY"}
        url = f"mysql://{handle.name}:{password}@{host}:{at.port}{where}{mode[self._settings.encryption]}"
        fields: dict[str, str | int] = {"host": at.host, "port": at.port, "username": handle.name}
        if database is not None:
            fields["database"] = database
        return Issued(fields=fields, secret={"password": Secret(password), "url": Secret(url)})

    async def _names(self, connection: Connection, prefix: str) -> list[str]:
        await self._primary.measure(connection)
        return [str(name) for (name,) in await connection.run(principal.names(prefix)) if str(name).startswith(prefix)]


async def _make(connection: Connection, name: str, text: str) -> None:
    """Create; when it was made and could not be granted what it should have, drop it again."""
    try:
        await connection.run(text)
    except MySQLError as error:
        code = code_of(error)
        if code == NO_SUCH_USER:
            raise Conflict("the target has a principal of that name already") from None
        if code is not None and not principal.was_refused(error):
            await _drop_half_made(connection, name)
        raise


async def _drop_half_made(connection: Connection, name: str) -> None:
    """It is locked, and whoever holds its lease removes it; this only saves the wait."""
    try:
        await connection.run(principal.drop(name, principal.ANYWHERE))
    except FAILURES:
        return


async def _or_absent(connection: Connection, text: str) -> None:
    try:
        await connection.run(text)
    except MySQLError as error:
        if code_of(error) == NO_SUCH_USER:
            raise NotFound("the target has no principal of that name") from None
        raise


async def _occupy(connection: Connection, text: str) -> None:
    try:
        await connection.run(text)
    except MySQLError as error:
        if code_of(error) != NO_SUCH_USER:
            raise


async def _identified(kind: str, password: str) -> str:
    if kind == "sha2":
        return await asyncio.to_thread(identified, kind, password)  # five thousand rounds in Python
    return identified(kind, password)
