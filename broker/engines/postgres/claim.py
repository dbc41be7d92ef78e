"""Whose target this is: a role that can't log in, whose comment names one installation (traps 19).

Two brokers with different stores on one target would take each other's users for strangers. The claim is a role of one
fixed name: creating it decides a race, and everyone may read its comment.
"""

from __future__ import annotations

import re

from broker.engines.postgres.guard import Connection
from broker.engines.postgres.principal import identifier, literal
from broker.engines.protocol import Claim
from ca.errors import Conflict

MARKER = "sojourn_claim"

_READ = """
SELECT shobj_description(oid, 'pg_authid') AS comment FROM pg_roles WHERE rolname = $1"""
_FORM = re.compile(r"sojourn installation=([a-z0-9]{8}) incarnation=([A-Za-z0-9]{1,40})")


async def claim(connection: Connection, installation: str, incarnation: str) -> Claim:
    """Make the claim if there is none, and read it. Raises Conflict: the target is another's."""
    found = await _read(connection)
    if found is None:
        text = literal(_text(installation, incarnation))
        await connection.execute(f"""
DO $sojourn$ BEGIN
  CREATE ROLE {identifier(MARKER)} NOLOGIN;
  COMMENT ON ROLE {identifier(MARKER)} IS {text};
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- the other race of two CREATE ROLE
END $sojourn$""")
        found = await _read(connection)
    if found is None or found.installation != installation:
        whose = "somebody we can't read" if found is None else f"the installation `{found.installation}`"
        raise Conflict(f"this target is claimed by {whose}; drop the role `{MARKER}` there if that one is no more")
    return found


async def adopt(connection: Connection, installation: str, incarnation: str) -> None:
    """Say anew which incarnation of ours the claim belongs to. Raises Conflict: the target is another's."""
    await claim(connection, installation, incarnation)
    await connection.execute(f"COMMENT ON ROLE {identifier(MARKER)} IS {literal(_text(installation, incarnation))}")


async def _read(connection: Connection) -> Claim | None:
    row = await connection.fetchrow(_READ, MARKER)
    if row is None:
        return None
    match = _FORM.fullmatch(row["comment"] or "")
    return Claim(installation=match[1], incarnation=match[2]) if match else Claim(installation="", incarnation="")


def _text(installation: str, incarnation: str) -> str:
    return f"sojourn installation={installation} incarnation={incarnation}"
