"""Whose target this is: a locked user whose required certificate subject names one installation (traps 19).

Nobody ever presents that certificate, and the user is locked besides. It is the one text of a user that both servers
keep, that CREATE USER sets in the same step that decides a race, and that nobody but who may manage users can change.
"""

from __future__ import annotations

import re

from asyncmy.errors import MySQLError

from broker.engines.mysql.principal import ANYWHERE, account, literal
from broker.engines.mysql.reach import NO_SUCH_USER, Connection, code_of
from broker.engines.protocol import Claim
from ca.errors import Conflict

MARKER = "sojourn_claim"

_READ = f"SELECT x509_subject FROM mysql.user WHERE user = {literal(MARKER)} AND host = {literal(ANYWHERE)}"
_FORM = re.compile(r"sojourn installation=([a-z0-9]{8}) incarnation=([A-Za-z0-9]{1,40})")


async def claim(connection: Connection, installation: str, incarnation: str) -> Claim:
    """Make the claim if there is none, and read it. Raises Conflict: the target is another's."""
    found = await _read(connection)
    if found is None:
        made = f"CREATE USER {account(MARKER)} {_requiring(installation, incarnation)} ACCOUNT LOCK"
        try:
            await connection.run(made)
        except MySQLError as error:
            if code_of(error) != NO_SUCH_USER:  # the other one of a race
                raise
        found = await _read(connection)
    if found is None or found.installation != installation:
        whose = "somebody we can't read" if found is None else f"the installation `{found.installation}`"
        raise Conflict(f"this target is claimed by {whose}; drop the user `{MARKER}` there if that one is no more")
    return found


async def adopt(connection: Connection, installation: str, incarnation: str) -> None:
    """Say anew which incarnation of ours the claim belongs to. Raises Conflict: the target is another's."""
    await claim(connection, installation, incarnation)
    await connection.run(f"ALTER USER {account(MARKER)} {_requiring(installation, incarnation)}")


async def _read(connection: Connection) -> Claim | None:
    rows = await connection.run(_READ)
    if not rows:
        return None
    text = rows[0][0]
    match = _FORM.fullmatch(text.decode(errors="replace") if isinstance(text, bytes) else str(text or ""))
    return Claim(installation=match[1], incarnation=match[2]) if match else Claim(installation="", incarnation="")


def _requiring(installation: str, incarnation: str) -> str:
    return f"REQUIRE SUBJECT {literal(f'sojourn installation={installation} incarnation={incarnation}')}"
