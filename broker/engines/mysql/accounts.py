"""The password of an account that is no principal of ours: a legacy one, or the one we log in as."""

from __future__ import annotations

from asyncmy.errors import MySQLError

from broker.engines.mysql import principal
from broker.engines.mysql.ending import hosts_of
from broker.engines.mysql.endpoint import Endpoint
from broker.engines.mysql.reach import NO_SUCH_USER, Connection, Reach, code_of, log_in
from broker.engines.mysql.sessions import Cut
from broker.engines.mysql.verifiers import identified
from ca.errors import Malformed, NotFound
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

_LONGEST = 80
"""MySQL keeps 32 characters of a user's name, MariaDB 128; most accounts are shorter than either."""


async def change_password(connection: Connection, account: str, password: Secret, kind: str) -> None:
    """Let `password` be the only one of `account`, for every host it exists for.

    Raises:
        Malformed: it is no name, or no password.
        NotFound: there is no such account.
    """
    clause = _identified(kind, password)
    hosts = await hosts_of(connection, _checked(account))
    if not hosts:
        raise NotFound(f"the target has no account `{account}`")
    for host in hosts:
        try:
            await connection.run(f"ALTER USER {principal.account(account, host)} {clause}")
        except MySQLError as error:
            if code_of(error) == NO_SUCH_USER:
                raise NotFound(f"the target has no account `{account}`") from None
            raise


async def opens(endpoint: Endpoint, account: str, password: Secret) -> bool:
    """Whether `password` logs in as `account`, from here. Raises TargetDown: it could not be asked."""
    connection = await log_in(endpoint, _checked(account), password)
    if connection is None:
        return False
    connection.close()
    return True


async def cut_sessions(reach: Reach, clock: Clock, account: str) -> int:
    """End every session of `account` on one endpoint, but our own connections. Raises NotYet, TargetDown."""
    name = _checked(account)
    return await reach.run(lambda connection: Cut(connection, name, clock, spared=reach.numbers).run())


def _checked(account: str) -> str:
    if not account or len(account) > _LONGEST or not account.isprintable():
        raise Malformed(f"the name of an account has 1 to {_LONGEST} printable characters")
    return account


def _identified(kind: str, password: Secret) -> str:
    """Whoever chose this password may not know of kinds: one that is no seed of 32 bytes is made `native`."""
    clear = password.reveal()
    if not clear:
        raise Malformed("an account needs a password")
    return identified("native" if kind == "ed25519" and len(clear.encode()) != 32 else kind, clear)
