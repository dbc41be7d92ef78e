"""The end of a principal: nobody can use it, verified on every endpoint; then nothing is left of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from asyncmy.errors import MySQLError

from broker.engines.mysql import principal
from broker.engines.mysql.reach import NO_SUCH_USER, Connection, Reach, code_of
from broker.engines.mysql.sessions import PATIENCE, Cut
from broker.engines.protocol import AccessEnded
from broker.errors import NotYet
from ca.errors import NotFound
from ca.runtime.clock import Clock

_LOCKED = re.compile(r" ACCOUNT LOCK\b")


async def end_access(primary: Reach, replicas: Sequence[Reach], clock: Clock, name: str) -> AccessEnded:
    """Disable on the primary, then cut and look on every endpoint; absent is success.

    Raises:
        NotYet, TargetDown, OutcomeUnknown: it is not verified everywhere.
    """
    there, cut = await primary.run(lambda connection: _disable_and_cut(connection, clock, name))
    for replica in replicas:
        cut += await replica.run(lambda connection: _cut_on_replica(connection, clock, name, there=there))
    return AccessEnded(sessions_cut=cut, endpoints=1 + len(replicas))


async def shut(primary: Reach, replicas: Sequence[Reach], clock: Clock, name: str, deadline: datetime) -> None:
    """Let nobody in, and cut whoever is; until then its holder could set a secret of its own.

    Raises:
        NotFound: there is no such principal.
        NotYet, TargetDown, OutcomeUnknown: somebody may still be in.
    """
    await primary.run(lambda connection: _shut_and_cut(connection, clock, name, deadline))
    for replica in replicas:
        await replica.run(lambda connection: _cut_on_replica(connection, clock, name, there=True))


async def clean_up(primary: Reach, name: str) -> None:
    """Drop it, for every host it exists for; absent is success. Raises TargetDown, OutcomeUnknown: to be repeated."""
    await primary.run(lambda connection: _drop(connection, name))


async def hosts_of(connection: Connection, name: str) -> list[str]:
    """Every host a user of this name exists for."""
    return [str(host) for (host,) in await connection.run(principal.hosts(name))]


async def _disable_and_cut(connection: Connection, clock: Clock, name: str) -> tuple[bool, int]:
    hosts = await hosts_of(connection, name)
    for host in hosts:
        await _unless_absent(connection, principal.disable(name, host))
    cut = await Cut(connection, name, clock).run()
    if await _admits(connection, name):
        raise NotYet("the principal was let in again while it was ended")
    return bool(hosts), cut


async def _shut_and_cut(connection: Connection, clock: Clock, name: str, deadline: datetime) -> None:
    if not await _unless_absent(connection, principal.shut(name, deadline)):
        raise NotFound("the target has no principal of that name")
    await Cut(connection, name, clock).run()


async def _cut_on_replica(connection: Connection, clock: Clock, name: str, *, there: bool) -> int:
    """Wait until it has heard that nobody may log in, then cut.

    One that knows no such principal, while it is `there` on the primary, has yet to hear that it was made.
    """
    started = clock.boot()
    while await _admits(connection, name) or (there and not await hosts_of(connection, name)):
        if clock.boot() - started >= PATIENCE:
            raise NotYet("a replica has not heard yet that nobody may log in")
        await clock.sleep(0.02)
    return await Cut(connection, name, clock).run()


async def _admits(connection: Connection, name: str) -> bool:
    """Whether a user of this name may log in, from any host; what can't be read is taken for yes."""
    for host in await hosts_of(connection, name):
        try:
            rows = await connection.run(f"SHOW CREATE USER {principal.account(name, host)}")
        except MySQLError as error:
            if code_of(error) is None:
                raise
            return bool(await hosts_of(connection, name))
        if not (rows and _LOCKED.search(str(rows[0][0]))):
            return True
    return False


async def _drop(connection: Connection, name: str) -> None:
    for host in await hosts_of(connection, name):
        await _unless_absent(connection, principal.drop(name, host))


async def _unless_absent(connection: Connection, text: str) -> bool:
    """Whether the user was there to do it to."""
    try:
        await connection.run(text)
    except MySQLError as error:
        if code_of(error) != NO_SUCH_USER:
            raise
        return False
    return True
