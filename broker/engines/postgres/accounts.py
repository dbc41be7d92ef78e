"""Accounts that are no principals of ours: a legacy one that is lent out, or the one we log in with ourselves."""

from __future__ import annotations

import asyncpg

from broker.engines.postgres import principal
from broker.engines.postgres.guard import Connection
from broker.engines.postgres.issuing import hashed
from broker.engines.postgres.reach import FAILURES, Endpoint, Reach, knock
from broker.engines.postgres.scram import ROUNDS
from broker.engines.postgres.sessions import Cut
from broker.errors import TargetDown
from ca.errors import Malformed, NotFound
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

_LONGEST = 1024
_REFUSED = frozenset({"28P01", "28000"})
"""A wrong password, one that ran out, and a role that may not log in at all."""

_PASSED = frozenset({"42501", "3D000", "55000"})
"""Said after the password was found right: no CONNECT on the database, no such database, one that takes nobody."""


async def change_password(primary: Reach, account: str, password: Secret) -> None:
    """Let `password` be the only one. Raises Malformed, NotFound, TargetDown, OutcomeUnknown, Unavailable."""
    clear = password.reveal()
    if not clear or len(clear) > _LONGEST or not clear.isascii() or not clear.isprintable():
        raise Malformed(f"a password for PostgreSQL has 1 to {_LONGEST} printable ASCII characters")
    made = await hashed(clear, ROUNDS["scram-4096"])
    text = f"ALTER ROLE {principal.identifier(account)} PASSWORD {principal.literal(made)}"
    await primary.run(lambda connection: connection.execute(text))


async def opens(endpoint: Endpoint, account: str, password: Secret) -> bool:
    """Whether it logs in, tried by a login. Raises TargetDown: nobody said yes or no."""
    try:
        session = await knock(endpoint, user=account, password=password)
    except asyncpg.PostgresError as error:
        code = getattr(error, "sqlstate", None) or ""
        if code in _REFUSED:
            return False
        if code in _PASSED:
            return True
        raise TargetDown(f"the target at `{endpoint}` could not judge a login ({code})") from None
    except FAILURES as error:
        raise TargetDown(f"the target at `{endpoint}` can't be reached ({type(error).__name__})") from None
    session.terminate()
    return True


async def cut_sessions(reach: Reach, clock: Clock, account: str) -> int:
    """End every session of it on one endpoint, but our own connections. Raises NotFound, NotYet, TargetDown."""

    async def work(connection: Connection) -> int:
        known = await principal.state(connection, account)
        if known is None:
            raise NotFound("the target has no account of that name")
        oid = int(str(known["oid"]))
        cut = Cut(connection, oid, clock, spared=reach.pids(), bystanders=reach.bystanders)
        return await cut.run()

    return await reach.run(work)
