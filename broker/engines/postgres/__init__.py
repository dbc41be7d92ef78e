"""PostgreSQL: a login role that is nothing but its memberships, for as long as its lease lives.

    principal.py   the texts of SQL: made, replaced, disabled, dropped
    issuing.py     what an agent is handed
    certificate.py client certificates, from a CA of the target's own
    scram.py       the verifiers that are sent instead of passwords
    sessions.py    cut, also those still logging in
    ending.py      access ended and verified on every endpoint; nothing left
    accounts.py    accounts that are not ours: rotated, tried, cut
    claim.py       whose target this is
    check.py       what `doctor` and `target check` look at; probe.py is proved by logging in
    reach.py       connections, and what their failures mean; guard.py keeps our password from who asks for it

What a holder can leave behind: a password of its own for as long as it may log in, objects in schemas where PUBLIC may
create (the check looks for those), prepared transactions where they are enabled. All of it goes with the principal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from broker.engines.passwords import OwnPassword
from broker.engines.postgres import accounts, principal
from broker.engines.postgres.certificate import MARKER, ClientAuthority
from broker.engines.postgres.check import Examination
from broker.engines.postgres.claim import adopt, claim
from broker.engines.postgres.ending import clean_up, end_access, shut
from broker.engines.postgres.guard import Connection
from broker.engines.postgres.issuing import Issuing
from broker.engines.postgres.reach import Reach
from broker.engines.postgres.settings import CERTIFICATE, RoleSettings, Settings, role_settings
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Lent, Making
from broker.errors import ClockUntrusted, NotPossible
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.secret import Secret

__all__ = ["Postgres", "RoleSettings", "Settings", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Postgres]:
    """The engine of one target. Nothing is connected yet: a target that is down at start comes later."""
    own = OwnPassword(settings.password.read)
    reaches = [Reach(endpoint, lent.clock, settings.connections) for endpoint in settings.endpoints(own.read)]
    try:
        yield Postgres(settings, lent, reaches, own)
    finally:
        for reach in reaches:
            reach.close()
        await lent.clock.sleep(0)  # transports close in a turn of their own


class Postgres:
    """One PostgreSQL server, with its standbys."""

    kind = "postgres"
    making = Making.CREATE_ONLY

    def __init__(self, settings: Settings, lent: Lent, reaches: Sequence[Reach], own: OwnPassword) -> None:
        self._settings, self._clock, self._own = settings, lent.clock, own
        self._primary, self._standbys = reaches[0], reaches[1:]
        authority = None if lent.keys is None else ClientAuthority(lent.keys, lent.target)
        self._issuing = Issuing(settings, authority, settings.encryption)
        self._read: dict[str, tuple[Role, RoleSettings]] = {}

    def plan(self, role: Role, name: str) -> Handle:
        """Name, groups, database and kind of secret; the same whoever computes it."""
        chosen = self._chosen(role)
        for identifier in (principal.own_name(name), *chosen.groups):
            principal.identifier(identifier)
        database, known = chosen.database or self._settings.database, self._settings.all_databases
        if database not in known:
            raise Malformed(
                f"the role `{role.full_name}` wants the database `{database}`, which is none of `databases`"
            )
        kind = chosen.secret_kind or self._settings.secret_kind
        if kind == CERTIFICATE:
            self._refuse_certificates(role)
        facts = {"groups": list(chosen.groups), "database": database, "secret_kind": kind}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def _refuse_certificates(self, role: Role) -> None:
        """Unless they can be given, and used."""
        if self._issuing.authority is None:
            raise Malformed(
                f"the role `{role.full_name}` gives certificates, which needs `keys` in the broker's settings"
            )
        if self._issuing.encryption == "off":
            raise Malformed(f"the role `{role.full_name}` gives certificates, which needs `tls` other than `off`")

    def _chosen(self, role: Role) -> RoleSettings:
        """The engine's part of a role, read once."""
        found = self._read.get(role.full_name)
        if found is None or found[0] is not role:
            self._read[role.full_name] = found = (role, role_settings(role))
        return found[1]

    def end_is_fixed(self, handle: Handle) -> bool:
        """A certificate ends when it says."""
        return bool(handle.facts["secret_kind"] == CERTIFICATE)

    def guarantee(self, role: Role) -> Guarantee:
        """New logins end at once, sessions are cut; without us the target ends new logins, and nothing a session."""
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
        offset, chosen = await self._offset(), self._chosen(role)
        fresh = await self._issuing.fresh(handle, self._clock.now() + offset, until + offset)
        text = principal.create(
            handle.name,
            fresh.verifier,
            until=until + offset,
            deadline=deadline + offset,
            groups=(*chosen.groups, MARKER) if self.end_is_fixed(handle) else chosen.groups,
            sessions=chosen.sessions,
        )
        await self._primary.run(lambda connection: connection.execute(text))
        return fresh.issued

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another verifier, once the old password opens nothing and whoever it let in is cut.

        In this order: a session still open could set a password of its own over ours, and keep the door.
        A certificate is believed until its end, so it goes with its principal only. Raises also NotPossible.
        """
        if self.end_is_fixed(handle):
            raise NotPossible("a certificate is believed until its end, it is taken back with its principal only")
        offset = await self._offset()
        fresh = await self._issuing.fresh(handle, self._clock.now() + offset, until + offset)
        text = principal.replace(handle.name, str(fresh.verifier), until + offset, deadline + offset)
        await shut(self._primary, self._standbys, self._clock, handle.name, deadline + offset)
        await self._primary.run(lambda connection: connection.execute(text))
        return fresh.issued

    async def renew(self, handle: Handle, until: datetime) -> None:
        """Move VALID UNTIL. Raises also NotPossible: a certificate's end stands in it."""
        if self.end_is_fixed(handle):
            raise NotPossible("the end of a certificate can't be moved, ask for another one")
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
        reaches = (self._primary, *self._standbys)
        return await Examination(self, reaches, self._settings, self._clock, self._issuing).run(roles, prefix)

    async def authority(self) -> str:
        """The certificate of this target's own client CA, for the server's `ssl_ca_file`."""
        try:
            return await self._issuing.needed().pem()
        except NotPossible:
            raise
        except Problem as problem:
            raise Unavailable(f"the key of the client CA can't be had: {problem}") from None

    @property
    def account(self) -> str:
        """Whom we log in as."""
        return self._settings.user

    def log_in_with(self, password: Secret | None) -> None:
        """Log in with this one from now on; connections at work are given up when they are done."""
        self._own.become(password)
        for reach in (self._primary, *self._standbys):
            reach.close()

    async def change_password(self, account: str, password: Secret) -> None:
        """See `accounts.py`."""
        await accounts.change_password(self._primary, account, password)

    async def opens(self, account: str, password: Secret) -> bool:
        """See `accounts.py`."""
        return await accounts.opens(self._primary.endpoint, account, password)

    async def cut_sessions(self, account: str) -> int:
        """On every endpoint; when the account is our own, all but our connections."""
        reaches = (self._primary, *self._standbys)
        return sum([await accounts.cut_sessions(reach, self._clock, account) for reach in reaches])

    async def _offset(self) -> timedelta:
        offset = await self._primary.offset()
        if abs(offset) > self._settings.clock_limit:
            raise ClockUntrusted(
                f"the target's clock is {offset.total_seconds():.0f} s from ours, more than the limit allows"
            )
        return offset

    async def _names(self, connection: Connection, prefix: str) -> list[str]:
        await self._primary.measure(connection)
        return [row["name"] for row in await connection.fetch(principal.NAMES, prefix, len(prefix))]


async def _occupy(connection: Connection, text: str) -> None:
    try:
        await connection.execute(text)
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return
