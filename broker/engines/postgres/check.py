"""What a grant and an ending will need at a target: looked at here, then proved with a probe (`probe.py`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from broker.engines.postgres.certificate import MARKER
from broker.engines.postgres.guard import Connection
from broker.engines.postgres.issuing import Issuing
from broker.engines.postgres.principal import identifier
from broker.engines.postgres.probe import Probe
from broker.engines.postgres.reach import Reach
from broker.engines.postgres.settings import CERTIFICATE, Settings, role_settings
from broker.engines.protocol import Engine, Finding
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock

_ADMIN = """
SELECT r.rolsuper, r.rolcreaterole, pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS signals,
       pg_is_in_recovery() AS standby, pg_backend_pid() AS pid, current_setting('server_version_num')::int AS version,
       current_setting('fsync') AS fsync, r.rolname::text AS name
FROM pg_roles r WHERE r.rolname = current_user"""
_GROUP = """
SELECT g.rolcanlogin,
       ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE pg_has_role(g.oid, r.oid, 'MEMBER') AND
             (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls OR r.rolname IN
              ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files', 'pg_signal_backend'))
             ORDER BY 1) AS powers,
       EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = g.oid AND m.admin_option
               AND pg_has_role(current_user, m.member, 'USAGE')) AS admin,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser
FROM pg_roles g WHERE g.rolname = $1"""
_CREATES = """
SELECT ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE has_schema_privilege(g.oid, n.oid, 'CREATE') ORDER BY 1)
         AS schemas, has_database_privilege(g.oid, current_database(), 'CREATE') AS makes_schemas
FROM pg_roles g WHERE g.rolname = $1"""
_SPREAD = "SELECT pg_is_in_recovery() AS standby, pg_backend_pid() AS pid"


class Examination:
    """One check of one target: the primary, then its standbys."""

    def __init__(
        self, engine: Engine, reaches: Sequence[Reach], settings: Settings, clock: Clock, issuing: Issuing
    ) -> None:
        self._engine, self._settings, self._clock, self._issuing = engine, settings, clock, issuing
        self._primary, self._standbys = reaches[0], reaches[1:]
        self._found: list[Finding] = []

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Every finding; a target that can't be reached is a finding too."""
        try:
            await self._primary.run(self._primary.measure)
            await self._primary.run(self._admin)
            for group in sorted({group for role in roles for group in role_settings(role).groups}):
                await self._primary.run(functools.partial(self._group, group))
            for database in self._settings.all_databases:
                await self._primary.elsewhere(database, functools.partial(self._database, database, roles))
            if any(self._kind(role) == CERTIFICATE for role in roles):
                await self._certificates()
        except Problem as problem:
            self._say("reachable", well=False, detail=str(problem), fix="start it, or mend host, port, user, password")
            return self._found
        for standby in self._standbys:
            await self._standby(standby)
        await self._clocks()
        if all(finding.well for finding in self._found):
            for role in roles:
                probe = Probe(self._engine, self._primary.endpoint, self._settings, role, self._clock)
                self._found += await probe.run(prefix)
        return self._found

    def _kind(self, role: Role) -> str:
        return role_settings(role).secret_kind or self._settings.secret_kind

    def _say(self, name: str, *, well: bool, detail: str, fix: str | None = None) -> None:
        self._found.append(Finding(name=name, well=well, detail=detail, fix=None if well else fix))

    async def _admin(self, connection: Connection) -> None:
        row = await connection.fetchrow(_ADMIN)
        assert row is not None
        me, power = identifier(row["name"]), bool(row["rolsuper"])
        version = row["version"]
        self._say("reachable", well=True, detail=f"PostgreSQL {version // 10000} at {self._primary.endpoint}")
        self._say("version", well=version >= 130000, detail=str(version), fix="PostgreSQL 13 or newer is needed")
        self._say("primary", well=not row["standby"], detail="writable", fix="name the primary as `host`")
        self._direct("direct", connection, row["pid"])
        self._say("fsync", well=row["fsync"] == "on", detail="fsync", fix="fsync = on")
        create = f"ALTER ROLE {me} CREATEROLE;"
        self._say("may create roles", well=power or row["rolcreaterole"], detail=row["name"], fix=create)
        signal = f"GRANT pg_signal_backend TO {me};"
        self._say("may end sessions", well=power or row["signals"], detail=row["name"], fix=signal)

    def _direct(self, name: str, connection: Connection, pid: int) -> None:
        self._say(
            name,
            well=connection.get_server_pid() == pid,
            detail="no pooler between us",
            fix="connect to the server itself: behind a pooler a cut session proves nothing",
        )

    async def _standby(self, standby: Reach) -> None:
        name = f"standby {standby.endpoint}"
        try:
            await standby.run(functools.partial(self._follows, name))
        except Problem as problem:
            fix = "start it, or take it out of `standbys`: no ending is verified while it does not answer"
            self._say(name, well=False, detail=str(problem), fix=fix)

    async def _follows(self, name: str, connection: Connection) -> None:
        row = await connection.fetchrow(_SPREAD)
        assert row is not None
        self._say(name, well=bool(row["standby"]), detail="it follows", fix="name as `standbys` only what replicates")
        self._direct(f"{name} direct", connection, row["pid"])

    async def _group(self, group: str, connection: Connection) -> None:
        row, quoted = await connection.fetchrow(_GROUP, group), identifier(group)
        is_there = "is there" if row is not None else "is not there"
        self._say(f"group {group}", well=row is not None, detail=is_there, fix=f"CREATE ROLE {quoted} NOLOGIN;")
        if row is None:
            return
        mend = f"ALTER ROLE {quoted} NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;"
        borrowed = [one for one in row["powers"] if one != group]
        mend += "".join(f" REVOKE {identifier(one)} FROM {quoted};" for one in borrowed)
        plain, powers = not row["rolcanlogin"] and not row["powers"], ", ".join(row["powers"])
        detail = f"powers of {powers}" if powers else "no powers" if plain else "it may log in"
        self._say(f"group {group} only holds rights", well=plain, detail=detail, fix=mend)
        grant = f"GRANT {quoted} TO {identifier(self._settings.user)} WITH ADMIN OPTION;"
        admin = bool(row["admin"] or row["superuser"])
        self._say(f"may give group {group}", well=admin, detail="admin option", fix=grant)

    async def _database(self, database: str, roles: Sequence[Role], connection: Connection) -> None:
        """Groups create nothing here, whichever database their role is for: their holders may be let in here too."""
        for group in sorted({group for role in roles for group in role_settings(role).groups}):
            row = await connection.fetchrow(_CREATES, group)
            if row is None:
                continue
            who, quoted = f"PUBLIC, {identifier(group)}", ", ".join(map(identifier, row["schemas"]))
            fix = f"REVOKE CREATE ON SCHEMA {quoted} FROM {who};" if quoted else ""
            if row["makes_schemas"]:
                fix = f"{fix} REVOKE CREATE ON DATABASE {identifier(database)} FROM {who};".strip()
            where = "" if database == self._settings.database else f" in {database}"
            detail = quoted or ("schemas" if row["makes_schemas"] else "no schema")
            self._say(f"group {group} creates nothing{where}", well=not fix, detail=detail, fix=fix)

    async def _certificates(self) -> None:
        """The CA's key outlives us, and the marker by which `pg_hba.conf` tells certificates is there."""
        durable = self._issuing.authority is not None and self._issuing.authority.durable
        fix = "keep `keys` on disk or in a token: after a restart the server would not know the CA any more"
        self._say("client CA", well=durable, detail="its key is kept" if durable else "its key is in memory", fix=fix)
        await self._primary.run(functools.partial(self._group, MARKER))

    async def _clocks(self) -> None:
        offset, limit = await self._primary.offset(), self._settings.clock_limit
        detail = f"{offset.total_seconds():+.3f} s from ours"
        self._say("clock", well=abs(offset) <= limit, detail=detail, fix="run NTP on both machines")
