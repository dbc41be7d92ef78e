"""What a grant and an ending will need at a target: looked at, then proved with a probe that is really logged in."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from broker.engines.postgres.principal import identifier
from broker.engines.postgres.reach import CONNECT_WITHIN, FAILURES, Connection, Reach
from broker.engines.postgres.settings import Settings, role_settings
from broker.engines.protocol import Engine, Finding
from broker.errors import TargetDown
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock

_ADMIN = """
SELECT r.rolsuper, r.rolcreaterole, pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS signals,
       pg_is_in_recovery() AS standby, pg_backend_pid() AS pid, current_setting('server_version_num')::int AS version,
       current_setting('fsync') AS fsync, r.rolname::text AS name
FROM pg_roles r WHERE r.rolname = current_user"""
_GROUP = """
SELECT g.rolcanlogin, g.rolsuper OR g.rolcreaterole OR g.rolcreatedb OR g.rolreplication OR g.rolbypassrls AS powers,
       EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = g.oid AND m.admin_option
               AND pg_has_role(current_user, m.member, 'USAGE')) AS admin,
       ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE has_schema_privilege(g.oid, n.oid, 'CREATE') ORDER BY 1)
         AS creates
FROM pg_roles g WHERE g.rolname = $1"""


class Examination:
    """One check of one target."""

    def __init__(self, engine: Engine, primary: Reach, settings: Settings, clock: Clock) -> None:
        self._engine, self._primary, self._settings, self._clock = engine, primary, settings, clock
        self._found: list[Finding] = []

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Every finding; a target that can't be reached is a finding too."""
        try:
            await self._primary.run(self._primary.measure)
            await self._primary.run(self._admin)
            groups = sorted({group for role in roles for group in role_settings(role).groups})
            for group in groups:
                await self._primary.run(functools.partial(self._group, group))
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

    async def _admin(self, connection: Connection) -> None:
        row = await connection.fetchrow(_ADMIN)
        assert row is not None
        me, power = identifier(row["name"]), bool(row["rolsuper"])
        version, direct = row["version"], connection.get_server_pid() == row["pid"]
        self._say("reachable", well=True, detail=f"PostgreSQL {version // 10000} at {self._primary.endpoint}")
        self._say("version", well=version >= 130000, detail=str(version), fix="PostgreSQL 13 or newer is needed")
        self._say("primary", well=not row["standby"], detail="writable", fix="name the primary as `host`")
        self._say(
            "direct",
            well=direct,
            detail="no pooler between us",
            fix="connect to the server itself: behind a pooler a cut session proves nothing",
        )
        self._say("fsync", well=row["fsync"] == "on", detail="fsync", fix="fsync = on")
        create = f"ALTER ROLE {me} CREATEROLE;"
        self._say("may create roles", well=power or row["rolcreaterole"], detail=row["name"], fix=create)
        signal = f"GRANT pg_signal_backend TO {me};"
        self._say("may end sessions", well=power or row["signals"], detail=row["name"], fix=signal)

    async def _group(self, group: str, connection: Connection) -> None:
        row, me = await connection.fetchrow(_GROUP, group), identifier(self._settings.user)
        quoted = identifier(group)
        is_there = "is there" if row is not None else "is not there"
        self._say(f"group {group}", well=row is not None, detail=is_there, fix=f"CREATE ROLE {quoted} NOLOGIN;")
        if row is None:
            return
        plain = not row["rolcanlogin"] and not row["powers"]
        mend = f"ALTER ROLE {quoted} NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;"
        self._say(f"group {group} only holds rights", well=plain, detail="no login, no powers", fix=mend)
        grant = f"GRANT {quoted} TO {me} WITH ADMIN OPTION;"
        admin = row["admin"] or await self._is_superuser(connection)
        self._say(f"may give group {group}", well=admin, detail="admin option", fix=grant)
        schemas = ", ".join(map(identifier, row["creates"]))
        revoke = f"REVOKE CREATE ON SCHEMA {schemas} FROM PUBLIC, {quoted};"
        self._say(f"group {group} creates nothing", well=not schemas, detail=schemas or "no schema", fix=revoke)

    async def _is_superuser(self, connection: Connection) -> bool:
        value: Any = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        return bool(value)

    async def _clocks(self) -> None:
        offset, limit = await self._primary.offset(), self._settings.clock_limit
        detail = f"{offset.total_seconds():+.3f} s from ours"
        self._say("clock", well=abs(offset) <= limit, detail=detail, fix="run NTP on both machines")

    async def _probe(self, role: Role, prefix: str) -> None:
        name = f"{prefix}probe{secrets.token_hex(7)}"
        handle, now = self._engine.plan(role, name), self._clock.now()
        soon = timedelta(seconds=60)
        outcome = "created, logged in, cut off, refused, dropped"
        try:
            issued = await self._engine.create(handle, role, now + soon, now + soon)
            password = issued.secret["password"].reveal()
            session = await self._log_in(name, password)
            await self._engine.end_access(handle)
            if not session.is_closed() and await _answers(session):
                outcome = "its session was not cut"
            session.terminate()
            if await self._still_admits(name, password):
                outcome = "it could log in after it was ended"
        except (Problem, *FAILURES) as error:
            outcome = f"failed: {error}" if isinstance(error, Problem) else f"failed: {type(error).__name__}"
        finally:
            await self._engine.end_access(handle)
            await self._engine.clean_up(handle)
        well = outcome.startswith("created")
        self._say(f"role {role.full_name}", well=well, detail=outcome, fix="see the detail; nothing was left behind")

    async def _log_in(self, name: str, password: str) -> Connection:
        at = self._primary.endpoint
        return await asyncpg.connect(
            host=at.host,
            port=at.port,
            database=at.database,
            user=name,
            password=password,
            ssl=at.tls,
            timeout=CONNECT_WITHIN,
        )

    async def _still_admits(self, name: str, password: str) -> bool:
        try:
            session = await self._log_in(name, password)
        except asyncpg.PostgresError:
            return False
        except OSError as error:
            raise TargetDown("the target went away while it was checked") from error
        session.terminate()
        return True


async def _answers(session: Connection) -> bool:
    try:
        await session.fetchval("SELECT 1")
    except FAILURES:
        return False
    return True
