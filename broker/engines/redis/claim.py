"""Whose node this is: a disabled user whose name holds installation and incarnation (traps 19).

`SETUSER` can't refuse a name that is taken, so a claim is looked for, made, and looked for again: of two installations
that claim at once at least one sees the other and steps back, and perhaps both do, and try again at their next sweep.
"""

from __future__ import annotations

import re

from broker.engines.protocol import Claim
from broker.engines.redis.principal import names, remove
from broker.engines.redis.reach import Connection
from ca.errors import Conflict

MARKER = "sojourn_claim_"

_FORM = re.compile(MARKER + r"([a-z0-9]{8})_([A-Za-z0-9]{1,40})")


async def claim(connection: Connection, installation: str, incarnation: str) -> Claim:
    """Make the claim if there is none, and read it. Raises Conflict: the node is another's."""
    found = await _read(connection, installation)
    if not found:
        await _set(connection, installation, incarnation)
        try:
            found = await _read(connection, installation)
        except Conflict:
            await remove(connection, f"{MARKER}{installation}_{incarnation}")
            raise
    known = sorted(found - {incarnation}) or [incarnation]  # an adoption that broke off counts as not done
    return Claim(installation=installation, incarnation=known[0])


async def adopt(connection: Connection, installation: str, incarnation: str) -> None:
    """Say anew which incarnation of ours the claim belongs to. Raises Conflict: the node is another's."""
    found = await _read(connection, installation)
    await _set(connection, installation, incarnation)
    for earlier in sorted(found - {incarnation}):
        await remove(connection, f"{MARKER}{installation}_{earlier}")


async def _set(connection: Connection, installation: str, incarnation: str) -> None:
    await connection.run(("ACL", "SETUSER", f"{MARKER}{installation}_{incarnation}", "reset", "off"))


async def _read(connection: Connection, installation: str) -> set[str]:
    """The incarnations of ours that claim it."""
    found = [(name, _FORM.fullmatch(name)) for name in sorted(await names(connection, MARKER))]
    for name, match in found:
        if match is None or match[1] != installation:
            whose = "somebody we can't read" if match is None else f"the installation `{match[1]}`"
            raise Conflict(f"this target is claimed by {whose}; delete the user `{name}` there if that one is no more")
    return {match[2] for _, match in found if match is not None}
