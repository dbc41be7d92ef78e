"""The principal itself: made, given another secret, ended, removed; on one node, each in one message to it.

`ACL SETUSER` adds to what is there and makes what isn't, so each text begins where it can't be misread: a create with
`reset`, a replacement with nothing but the password, so that a user that was ended meanwhile stays shut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from broker.engines.redis.reach import Connection
from broker.errors import NotYet
from ca.errors import Conflict, Malformed, NotFound
from ca.runtime.clock import Clock

PATIENCE = 15.0
"""Seconds after which an ending is reported as not yet verified, to be tried again."""

_NAME = re.compile(r"[a-z0-9_]{1,80}")
_USER = re.compile(r"(?:^| )user=(\S+)(?: |$)")
_NUMBER = re.compile(r"^id=(\d+) ")


def checked(name: str) -> str:
    """A principal's name. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed("the name of a leased user has 1 to 80 of `a-z`, `0-9`, `_`")
    return name


def verifier(password: str) -> str:
    """What the node keeps: the SHA-256 of it, which opens nothing by itself."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


async def make(connection: Connection, name: str, proof: str, rules: Sequence[str]) -> None:
    """Make it, or make it anew: nothing of an earlier one is left, neither its secret nor what it opened.

    In this order, in one message: whoever is cut can't come back, and nobody knows the new secret yet.
    """
    made = ("ACL", "SETUSER", name, "reset", "on", proof, *rules)
    await connection.run(made, ("CLIENT", "KILL", "USER", name))


async def replace(connection: Connection, name: str, proof: str) -> None:
    """Another secret, and whoever came in with the old one is cut. It is never opened by this.

    Raises:
        NotFound: it is not there.
        Conflict: it was ended.
    """
    if await flags(connection, name) is None:
        raise NotFound("the target has no principal of that name")
    changed = ("ACL", "SETUSER", name, "resetpass", proof)
    *_, known = await connection.together(changed, ("CLIENT", "KILL", "USER", name), ("ACL", "GETUSER", name))
    if "on" not in _flags(known):
        raise Conflict("the principal was ended, and stays so")


async def shut(connection: Connection, name: str) -> None:
    """No login, no right, for one that is there."""
    await connection.run(("ACL", "SETUSER", name, "reset", "off"))


async def flags(connection: Connection, name: str) -> set[str] | None:
    """`on` or `off` among them; None when it is not there."""
    (known,) = await connection.run(("ACL", "GETUSER", name))
    return None if known is None else _flags(known)


async def cut(connection: Connection, clock: Clock, name: str, spared: Callable[[], set[int]] = set) -> int:
    """Cut until two looks see nobody but those that are `spared`; how many were cut.

    Raises:
        NotYet: somebody is still there after `PATIENCE`.
    """
    (me,) = await connection.run(("CLIENT", "ID"))
    started, empty, pause, gone = clock.boot(), 0, 0.001, set[int]()
    while empty < 2:
        found = await _sessions(connection, name, me) - spared()
        gone |= found
        empty = 0 if found else empty + 1
        if not found:
            continue
        if clock.boot() - started >= PATIENCE:
            raise NotYet(f"{len(found)} sessions could not be ended yet")
        for number in sorted(found):
            await connection.run(("CLIENT", "KILL", "ID", number, "SKIPME", "yes"))
        await clock.sleep(pause)
        pause = min(pause * 2, 0.05)
    return len(gone)


async def remove(connection: Connection, name: str) -> None:
    """Remove it; absent is success."""
    await connection.run(("ACL", "DELUSER", name))


async def names(connection: Connection, prefix: str) -> set[str]:
    """The users whose names begin with `prefix`."""
    (found,) = await connection.run(("ACL", "USERS"))
    if not isinstance(found, list):
        raise ValueError("the answer to ACL USERS is no list")  # noqa: TRY004 - an answer that makes no sense
    return {str(name) for name in found if str(name).startswith(prefix)}


async def save(connection: Connection) -> None:
    """Write the node's users to its ACL file; until then a restart brings back what was before.

    Raises:
        NotYet: it could not be written.
    """
    try:
        await connection.run(("ACL", "SAVE"))
    except ResponseError:
        raise NotYet("the target could not write its ACL file: a restart would bring back what was before") from None


async def _sessions(connection: Connection, name: str, me: int) -> set[int]:
    """Those of `name` but our own, which must be in the list: one that doesn't show us may not show others."""
    (text,) = await connection.run(("CLIENT", "LIST"))
    found, everybody = set[int](), set[int]()
    for line in str(text).splitlines():
        user, number = _USER.search(line), _NUMBER.match(line)
        if number is None:
            raise ValueError("a line of CLIENT LIST has no id")
        everybody.add(int(number[1]))
        if user is not None and user[1] == name:
            found.add(int(number[1]))
    if me not in everybody:
        raise ValueError("CLIENT LIST does not show us")
    return found - {me}


def _flags(known: Any) -> set[str]:
    """Of an ACL GETUSER reply: names and values in turn."""
    if not isinstance(known, list) or known[:1] != ["flags"]:
        raise ValueError("the answer to ACL GETUSER is none")
    return set(known[1])
