"""The principal itself, as texts of SQL: made, given another secret, disabled, dropped.

A text may hold several statements; they are one packet, and the server stops at the first that fails. User DDL commits
by itself and can't be rolled back, so a user is made locked, granted its rights, and unlocked as the last step: what is
half made lets nobody in. A condition ("not after this moment", "not when it was ended") is judged by the server in the
same packet: it chooses the statement that is then prepared and executed.

An ended user is locked *and* marked by a limit of one statement per hour, which its holder can't change. A replacement
unlocks, so it looks for the mark before and after; an ending looks for the lock after it marked. Whichever comes
second sees the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ca.errors import Malformed

ANYWHERE = "%"
"""The host our users are made for."""

TOO_LATE, ENDED = "sojourn_too_late", "sojourn_ended"
"""Columns nobody has: a condition that does not hold executes `DO` one of them, and the server's error names it."""


def was_refused(error: BaseException) -> bool:
    """Whether a condition of ours did not hold, so that nothing was done."""
    return any(column in str(error.args[1:]) for column in (TOO_LATE, ENDED))


_NAME = re.compile(r"[a-z0-9_]{1,32}")


def checked(name: str) -> str:
    """A principal's name. Raises Malformed: MySQL keeps 32 characters and cuts nothing silently."""
    if not _NAME.fullmatch(name):
        raise Malformed("the name of a leased user has 1 to 32 of `a-z`, `0-9`, `_`")
    return name


def literal(text: str) -> str:
    """`text` quoted for SQL under NO_BACKSLASH_ESCAPES, which every connection of ours sets."""
    if "\0" in text:
        raise RuntimeError("no text of ours holds a NUL")
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """`name` quoted as a name."""
    return "`" + name.replace("`", "``") + "`"


def account(name: str, host: str = ANYWHERE) -> str:
    """A user at a host, quoted."""
    return f"{literal(name)}@{literal(host)}"


def scope(place: str) -> str:
    """A place as GRANT takes it: in the name of a whole schema `_` and `%` would be wildcards."""
    schema, dot, table = place.partition(".")
    if dot:
        return f"{identifier(schema)}.{identifier(table)}"
    return identifier(schema.replace("_", "\\_")) + ".*"


def grants(name: str, role: str | None, privileges: Mapping[str, Sequence[str]], *, mariadb: bool) -> list[str]:
    """The statements that give it what it may do."""
    who = account(name)
    said = [f"GRANT {', '.join(given)} ON {scope(place)} TO {who}" for place, given in sorted(privileges.items())]
    if role is None:
        return said
    given, as_default = identifier(role), "SET DEFAULT ROLE {} FOR {}" if mariadb else "SET DEFAULT ROLE {} TO {}"
    return [*said, f"GRANT {given} TO {who}", as_default.format(given, who)]


def create(
    name: str,
    identified: str,
    *,
    deadline: datetime,
    granted: Sequence[str],
    sessions: int,
    tls: bool,
    mariadb: bool,
) -> str:
    """Make it locked, grant, unlock; unless the server's clock says that it is too late."""
    need = " REQUIRE SSL" if tls else ""
    made = f"CREATE USER {account(name)} {identified}{need} WITH MAX_USER_CONNECTIONS {sessions:d} ACCOUNT LOCK"
    in_time = _in_time(deadline, made)
    if mariadb:
        in_time = f"EXECUTE IMMEDIATE IF({_late(deadline)}, {literal(f'DO {TOO_LATE}')}, {literal(made)})"
    return ";\n".join([in_time, *granted, f"ALTER USER {account(name)} ACCOUNT UNLOCK"])


def shut(name: str, deadline: datetime) -> str:
    """Let no login in until it has another secret."""
    return _in_time(deadline, f"ALTER USER {account(name)} ACCOUNT LOCK")


def replace(name: str, identified: str, deadline: datetime) -> str:
    """Give it another secret and let it in again, unless it was ended, before or meanwhile."""
    opened = f"ALTER USER {account(name)} {identified} ACCOUNT UNLOCK"
    ended = f"EXISTS(SELECT 1 FROM mysql.user WHERE user = {literal(name)} AND max_questions <> 0)"
    return ";\n".join([
        _chosen(f"{_late(deadline)}", f"DO {TOO_LATE}", "DO 0"),
        _chosen(ended, f"DO {ENDED}", opened),
        _chosen(ended, f"ALTER USER {account(name)} ACCOUNT LOCK", "DO 0"),
        _chosen(ended, f"DO {ENDED}", "DO 0"),
    ])  # fmt: skip


def occupy(name: str) -> str:
    """Take the name with something that can't log in and never will."""
    return f"CREATE USER {account(name)} WITH MAX_QUERIES_PER_HOUR 1 ACCOUNT LOCK"


def disable(name: str, host: str) -> str:
    """No login, for good."""
    return f"ALTER USER {account(name, host)} WITH MAX_QUERIES_PER_HOUR 1 ACCOUNT LOCK"


def drop(name: str, host: str) -> str:
    """Remove it; absent is success."""
    return f"DROP USER IF EXISTS {account(name, host)}"


def hosts(name: str) -> str:
    """A query for every host a user of this name exists for."""
    return f"SELECT host FROM mysql.user WHERE user = {literal(name)} ORDER BY host"


def names(prefix: str) -> str:
    """A query for the users whose names begin with `prefix`; as bytes, whatever the collation."""
    return f"SELECT DISTINCT user FROM mysql.user WHERE LEFT(user, {len(prefix)}) = {literal(prefix)} ORDER BY user"


def _in_time(deadline: datetime, statement: str) -> str:
    return _chosen(_late(deadline), f"DO {TOO_LATE}", statement)


def _late(deadline: datetime) -> str:
    return f"UTC_TIMESTAMP(6) > {literal(deadline.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S.%f'))}"


def _chosen(condition: str, then: str, otherwise: str) -> str:
    """One of two statements, chosen and executed by the server."""
    return (
        f"SET @sojourn = IF({condition}, {literal(then)}, {literal(otherwise)});\n"
        "PREPARE sojourn FROM @sojourn;\nEXECUTE sojourn;\nDEALLOCATE PREPARE sojourn"
    )
