"""The principal itself: made, given another secret, moved on, disabled, dropped.

One text is one simple-query message and so one transaction and one round trip. A leased user's rights are memberships
in groups and nothing else: grants of its own would bloat every table's ACL until it breaks (secrets 0.7), and the
`role` setting would keep an open session's rights after the group was revoked (traps 5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from broker.engines.postgres.guard import Connection
from broker.engines.postgres.reach import TOO_LATE
from ca.errors import Malformed

_OURS = re.compile(r"[a-z][a-z0-9_]{0,62}")


def identifier(name: str) -> str:
    """`name` quoted for SQL. Raises Malformed: empty, longer than PostgreSQL keeps, or with a NUL."""
    if not name or len(name.encode()) > 63 or "\0" in name:
        raise Malformed("a PostgreSQL name has 1 to 63 bytes and no NUL")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` quoted for SQL, whatever `standard_conforming_strings` says; backslashes don't occur in what we send."""
    if "\\" in text or "\0" in text:
        raise RuntimeError("no text of ours holds a backslash or a NUL")
    return "'" + text.replace("'", "''") + "'"


def moment(time: datetime) -> str:
    """A time as a literal that means the same in every time zone setting."""
    return literal(time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00"))


def own_name(name: str) -> str:
    """`name` when it can be a principal of ours, in every statement here. Raises Malformed."""
    if not _OURS.fullmatch(name):
        raise Malformed("a principal's name has 1 to 63 of `a-z`, `0-9` and `_`, and begins with a letter")
    return name


def create(
    name: str, verifier: str | None, *, until: datetime, deadline: datetime, groups: Sequence[str], sessions: int
) -> str:
    """Make it, unless the server's clock says that it is too late.

    Without a verifier it logs in by certificate. VALID UNTIL is not asked then, so it shuts every other door: whatever
    password its holder sets itself opens nothing, and only we could move that end (traps 24).
    """
    secret = (
        "PASSWORD NULL VALID UNTIL '-infinity'"
        if verifier is None
        else f"PASSWORD {literal(verifier)} VALID UNTIL {moment(until)}"
    )
    return (
        f"{_in_time(deadline)} CREATE ROLE {identifier(name)} LOGIN INHERIT {secret}"
        f" CONNECTION LIMIT {sessions:d} IN ROLE {', '.join(map(identifier, groups))}"
    )


def shut(name: str, deadline: datetime) -> str:
    """No secret opens it any more, and none its own sessions may set: they can't move VALID UNTIL.

    It still may log in, in principle: what was disabled meanwhile must stay so. The wait for a lock is short, as in
    `disable`.
    """
    return f"""{_in_time(deadline)}
DO $sojourn$ BEGIN
  SET LOCAL lock_timeout = '250ms';
  ALTER ROLE {identifier(name)} PASSWORD NULL VALID UNTIL '-infinity';
END $sojourn$"""


def replace(name: str, verifier: str, until: datetime, deadline: datetime) -> str:
    """Give it another secret, once it is shut and its sessions are cut."""
    return (
        f"{_in_time(deadline)} ALTER ROLE {identifier(name)} PASSWORD {literal(verifier)} VALID UNTIL {moment(until)}"
    )


def renew(name: str, until: datetime) -> str:
    """Move the end of new logins."""
    return f"ALTER ROLE {identifier(name)} VALID UNTIL {moment(until)}"


def occupy(name: str) -> str:
    """Take the name with something that can't log in; waits for a CREATE ROLE of that name that is under way."""
    return f"CREATE ROLE {identifier(name)} NOLOGIN"


def disable(name: str) -> str:
    """In one transaction: no login, no password, no group. Absent is nothing to do.

    One of its own sessions may hold a lock on the very row (`ALTER ROLE CURRENT_USER …` left open): the wait is short,
    and whoever calls cuts them and tries again (`ending.py`). A group somebody else granted may refuse to be revoked by
    us; that must not undo the NOLOGIN, so it is looked at afterwards (`state`).
    """
    return f"""
DO $sojourn$
DECLARE
  leased oid := (SELECT oid FROM pg_roles WHERE rolname = {literal(name)});
  membership record;
BEGIN
  IF leased IS NULL THEN RETURN; END IF;
  SET LOCAL lock_timeout = '250ms';
  ALTER ROLE {identifier(name)} NOLOGIN PASSWORD NULL VALID UNTIL '-infinity' CONNECTION LIMIT 0;
  FOR membership IN SELECT pg_get_userbyid(roleid) AS grp, pg_get_userbyid(grantor) AS giver
                    FROM pg_auth_members WHERE member = leased LOOP
    BEGIN
      IF current_setting('server_version_num')::int >= 160000 THEN
        EXECUTE format('REVOKE %I FROM {_percent(identifier(name))} GRANTED BY %I', membership.grp, membership.giver);
      ELSE
        EXECUTE format('REVOKE %I FROM {_percent(identifier(name))}', membership.grp);
      END IF;
    EXCEPTION WHEN insufficient_privilege OR dependent_objects_still_exist THEN NULL;
    END;
  END LOOP;
END $sojourn$"""


_STATE = """
SELECT r.oid, r.rolcanlogin, COALESCE(r.rolvaliduntil = '-infinity', false) AS shut,
       ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid ORDER BY 1) AS groups
FROM pg_roles r WHERE r.rolname = $1"""


async def state(connection: Connection, name: str) -> asyncpg.Record | None:
    """What a server knows of it: `oid`, `rolcanlogin`, `shut`, `groups`; None when it is absent."""
    found: asyncpg.Record | None = await connection.fetchrow(_STATE, name)
    return found


def drop(name: str) -> str:
    """Remove it; absent is success; refused while anything depends on it."""
    return f"DROP ROLE IF EXISTS {identifier(name)}"


def drop_owned(name: str) -> str:
    """Drop, in one database, what it owns and what it was given; never reassign: a planted function would rise."""
    return f"GRANT {identifier(name)} TO CURRENT_USER; DROP OWNED BY {identifier(name)} CASCADE"


BURDENED = """
SELECT d.datname::text AS name FROM pg_shdepend s
JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
JOIN pg_database d ON d.oid = s.dbid OR (s.dbid = 0 AND d.datname = current_database())
WHERE r.rolname = $1 GROUP BY d.datname ORDER BY 1"""
"""The databases in which something depends on a role."""

PREPARED = "SELECT gid, database::text AS name FROM pg_prepared_xacts WHERE owner = $1 ORDER BY gid"
"""Transactions of a role that outlive its sessions."""

NAMES = "SELECT rolname::text AS name FROM pg_roles WHERE left(rolname::text, $2::int) = $1 ORDER BY 1"


def _in_time(deadline: datetime) -> str:
    return (
        f"DO $sojourn$ BEGIN IF clock_timestamp() > {moment(deadline)}::timestamptz THEN"
        f" RAISE EXCEPTION 'too late' USING ERRCODE = '{TOO_LATE}'; END IF; END $sojourn$;"
    )


def _percent(quoted: str) -> str:
    return quoted.replace("%", "%%").replace("'", "''")
