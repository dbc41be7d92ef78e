"""What a grant and an ending will need at a target: looked at, then proved with a probe that is really logged in."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from asyncmy.errors import MySQLError

from broker.engines.mysql import principal
from broker.engines.mysql.reach import FAILURES, Connection, Reach, code_of, log_in
from broker.engines.mysql.settings import Settings, role_settings
from broker.engines.protocol import Engine, Finding
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

_SERVER = "SELECT VERSION(), @@GLOBAL.read_only, CONNECTION_ID(), CURRENT_USER()"
_OLDEST = {True: (10, 4), False: (8, 0)}
_GRANT = re.compile(r"GRANT (.+?) ON (\S+)\.\* TO ")
_NEEDED = ("CREATE USER", "PROCESS")
_KILLS = {"CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"}


class Examination:
    """One check of one target."""

    def __init__(self, engine: Engine, primary: Reach, settings: Settings, clock: Clock) -> None:
        self._engine, self._primary, self._settings, self._clock = engine, primary, settings, clock
        self._found: list[Finding] = []
        self._groups: list[str] = []

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Every finding; a target that can't be reached is a finding too."""
        self._groups = sorted({said for role in roles if (said := role_settings(role).role) is not None})
        try:
            await self._primary.run(self._primary.measure)
            await self._primary.run(self._server)
            for group in self._groups:
                await self._primary.run(functools.partial(self._role, group))
        except Problem as problem:
            self._say("reachable", well=False, detail=str(problem), fix="start it, or mend host, port, user, password")
            return self._found
        await self._clocks()
        if all(finding.well for finding in self._found):
            for role in roles:
                await self._probe(role, prefix)
        return self._found

    def _say(self, name: str, *, well: bool, detail: str, fix: str | None = None) -> None:
        self._found.append(Finding(name=name, well=well, detail=detail, fix=None if well else fix))

    async def _server(self, connection: Connection) -> None:
        ((version, read_only, number, current),) = await connection.run(_SERVER)
        mariadb = await self._primary.is_mariadb()
        parts = tuple(int(part) for part in re.findall(r"\d+", str(version))[:2])
        self._say("reachable", well=True, detail=f"{'MariaDB' if mariadb else 'MySQL'} at {self._primary.endpoint}")
        self._say(
            "version", well=parts >= _OLDEST[mariadb], detail=str(version), fix="MariaDB 10.4 or MySQL 8.0 is needed"
        )
        self._say("primary", well=not int(read_only), detail="writable", fix="name the primary as `host`")
        self._say(
            "direct",
            well=int(number) == connection.number,
            detail="no proxy between us",
            fix="connect to the server itself: behind a proxy a cut session proves nothing",
        )
        await self._rights(connection, str(current), mariadb=mariadb)

    async def _rights(self, connection: Connection, current: str, *, mariadb: bool) -> None:
        user, _, host = current.rpartition("@")
        me, held = principal.account(user, host), await _held(connection, "SHOW GRANTS")
        for right in _NEEDED:
            well = right in held or "ALL PRIVILEGES" in held
            self._say(f"may {right.lower()}", well=well, detail=user, fix=f"GRANT {right} ON *.* TO {me};")
        kills = "CONNECTION ADMIN" if mariadb else "CONNECTION_ADMIN"
        well = bool(_KILLS & held) or "ALL PRIVILEGES" in held
        self._say("may end sessions", well=well, detail=user, fix=f"GRANT {kills} ON *.* TO {me};")
        well = await _works(connection, f"SHOW CREATE USER {me}") and await _works(connection, principal.names("sj_"))
        self._say("may see users", well=well, detail=user, fix=f"GRANT SELECT ON mysql.* TO {me};")
        if mariadb and self._groups:
            well = "ALL PRIVILEGES" in held or "UPDATE" in held | await _held(connection, "SHOW GRANTS", "`mysql`")
            self._say("may set a default role", well=well, detail=user, fix=f"GRANT UPDATE ON mysql.* TO {me};")

    async def _role(self, role: str, connection: Connection) -> None:
        quoted = principal.identifier(role)
        try:
            powers = await _held(connection, f"SHOW GRANTS FOR {quoted}")
        except MySQLError as error:
            if code_of(error) is None:
                raise
            self._say(f"role {role}", well=False, detail="is not there", fix=f"CREATE ROLE {quoted};")
            return
        powers -= {"USAGE"}
        self._say(
            f"role {role} only holds rights in schemas",
            well=not powers,
            detail=", ".join(sorted(powers)) or "no power over the server",
            fix=f"REVOKE {', '.join(sorted(powers))} ON *.* FROM {quoted};",
        )

    async def _clocks(self) -> None:
        offset, limit = await self._primary.offset(), self._settings.clock_limit
        detail = f"{offset.total_seconds():+.3f} s from ours"
        self._say("clock", well=abs(offset) <= limit, detail=detail, fix="run NTP on both machines")

    async def _probe(self, role: Role, prefix: str) -> None:
        handle, now = self._engine.plan(role, f"{prefix}probe{secrets.token_hex(7)}"), self._clock.now()
        soon = now + timedelta(seconds=60)
        outcome = "created, logged in, cut off, refused, dropped"
        try:
            issued = await self._engine.create(handle, role, soon, soon)
            password = issued.secret["password"]
            session = await self._log_in(handle.name, password)
            if session is None:
                outcome = "it could not log in"
            await self._engine.end_access(handle)
            if session is not None and await _answers(session):
                outcome = "its session was not cut"
            again = await self._log_in(handle.name, password)
            if again is not None:
                again.close()
                outcome = "it could log in after it was ended"
        except Problem as error:
            outcome = f"failed: {error}"
        finally:
            await self._engine.end_access(handle)
            await self._engine.clean_up(handle)
        well = outcome.startswith("created")
        self._say(f"role {role.full_name}", well=well, detail=outcome, fix=self._fix(role))

    async def _log_in(self, name: str, password: Secret) -> Connection | None:
        return await log_in(self._primary.endpoint, name, password)

    def _fix(self, role: Role) -> str:
        said, me = role_settings(role), principal.account(self._settings.user)
        grants = [
            f"GRANT {', '.join(given)} ON {principal.scope(place)} TO {me} WITH GRANT OPTION;"
            for place, given in sorted(said.privileges.items())
        ]
        if said.role is not None:
            grants.append(f"GRANT {principal.identifier(said.role)} TO {me} WITH ADMIN OPTION;")
        return " ".join(grants)


async def _held(connection: Connection, question: str, schema: str = "*") -> set[str]:
    """The privileges over a schema, or over the whole server, that SHOW GRANTS names."""
    lines = [_GRANT.match(str(text)) for (text, *_) in await connection.run(question)]
    return {right.strip() for match in lines if match and match[2] == schema for right in match[1].split(",")}


async def _works(connection: Connection, text: str) -> bool:
    try:
        await connection.run(text)
    except MySQLError as error:
        if code_of(error) is None:
            raise
        return False
    return True


async def _answers(session: Connection) -> bool:
    try:
        await session.run("SELECT 1")
    except FAILURES:
        return False
    finally:
        session.close()
    return True
