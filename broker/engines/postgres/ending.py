"""The end of a principal: nobody can use it, verified on every endpoint; then nothing is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

import asyncpg

from broker.engines.postgres import principal
from broker.engines.postgres.guard import Connection
from broker.engines.postgres.reach import Reach
from broker.engines.postgres.sessions import Cut
from broker.engines.protocol import AccessEnded
from broker.errors import NotYet
from ca.errors import NotFound
from ca.runtime.clock import Clock

STANDBY_PATIENCE = 5.0
"""Seconds a standby may take to hear of a change before the ending is put off; it is tried again."""

_TRIES = 8
"""How often a row lock held by the principal's own sessions is broken before the ending is put off."""


async def end_access(primary: Reach, standbys: Sequence[Reach], clock: Clock, name: str) -> AccessEnded:
    """Disable on the primary, then cut and look on every endpoint (traps 5, 24).

    Raises:
        NotYet, TargetDown, OutcomeUnknown: it is not verified everywhere.
    """
    oid, cut = await primary.run(lambda connection: _disable_and_cut(primary, connection, clock, name))
    cut += await _on_each(standbys, lambda at, connection: _cut_there(at, connection, clock, name, oid, _is_enabled))
    return AccessEnded(sessions_cut=cut, endpoints=1 + len(standbys))


async def _on_each(standbys: Sequence[Reach], work: Callable[[Reach, Connection], Awaitable[int]]) -> int:
    """On all of them at once, also on those behind one that does not answer; the first failure is told afterwards."""
    ends = await asyncio.gather(*(standby.run(partial(work, standby)) for standby in standbys), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return sum(end for end in ends if not isinstance(end, BaseException))


async def _disable_and_cut(primary: Reach, connection: Connection, clock: Clock, name: str) -> tuple[int | None, int]:
    known = await principal.state(connection, name)
    oid = None if known is None else int(str(known["oid"]))
    cut = Cut(connection, oid, clock)
    if oid is not None:
        await _disable(primary, connection, cut, name)
    return oid, await cut.run()


async def _disable(primary: Reach, connection: Connection, cut: Cut, name: str) -> None:
    await _insist(primary, connection, cut, name, principal.disable(name))
    left = await principal.state(connection, name)
    if left is not None and _is_enabled(left):
        raise NotYet("the principal could not be disabled: it is locked, or a group of it was granted by somebody else")


async def shut(primary: Reach, standbys: Sequence[Reach], clock: Clock, name: str, deadline: datetime) -> None:
    """Let no secret open it any more, and cut whoever is in; until then its holder could set a secret of its own.

    Raises:
        NotFound: there is no such principal.
        NotYet, TargetDown, OutcomeUnknown: somebody may still be in.
    """
    oid = await primary.run(lambda connection: _shut_and_cut(primary, connection, clock, name, deadline))
    await _on_each(standbys, lambda at, connection: _cut_there(at, connection, clock, name, oid, _is_open))


async def _shut_and_cut(primary: Reach, connection: Connection, clock: Clock, name: str, deadline: datetime) -> int:
    known = await principal.state(connection, name)
    if known is None:
        raise NotFound("the target has no principal of that name")
    oid = int(str(known["oid"]))
    cut = Cut(connection, oid, clock)
    if not await _insist(primary, connection, cut, name, principal.shut(name, deadline)):
        raise NotYet("the principal's row is locked, its secret could not be taken back yet")
    await cut.run()
    return oid


async def _insist(primary: Reach, connection: Connection, cut: Cut, name: str, text: str) -> bool:
    """Change the principal although its own sessions hold on to its row; False when they would not let go."""
    for _ in range(_TRIES):
        try:
            await connection.execute(text)
        except (asyncpg.LockNotAvailableError, asyncpg.InternalServerError):  # held, or "tuple concurrently updated"
            await cut.once()
            await roll_back_prepared(primary, connection, name)
            await cut.clock.sleep(0.005)
        else:
            return True
    return False


async def _cut_there(  # noqa: PLR0917 - what `_on_each` gives, and what it is about
    standby: Reach,
    connection: Connection,
    clock: Clock,
    name: str,
    oid: int | None,
    admits: Callable[[asyncpg.Record], bool],
) -> int:
    """Wait until it has heard that nobody may log in; whoever is in is cut meanwhile, and again when it has.

    One that knows no such principal, while the primary has it, has yet to hear that it was made: with an open door.
    """
    started, pause, cut = clock.boot(), 0.01, Cut(connection, oid, clock, bystanders=standby.bystanders)
    while (oid is not None) if (seen := await principal.state(connection, name)) is None else admits(seen):
        await cut.once()
        if clock.boot() - started >= STANDBY_PATIENCE:
            raise NotYet("a standby has not heard yet that nobody may log in")
        await clock.sleep(pause)
        pause = min(pause * 2, 0.2)
    return await cut.run()


def _is_enabled(state: asyncpg.Record) -> bool:
    return bool(state["rolcanlogin"] or state["groups"])


def _is_open(state: asyncpg.Record) -> bool:
    return not state["shut"]


async def clean_up(primary: Reach, name: str) -> None:
    """Drop it, whatever it owns and whatever it prepared; absent is success.

    Raises:
        NotYet: something still depends on it.
        TargetDown, OutcomeUnknown: to be repeated.
    """
    if await primary.run(lambda connection: _drop(connection, name)):
        return
    burdened = await primary.run(lambda connection: _fetch_names(connection, principal.BURDENED, name))
    await primary.run(lambda connection: roll_back_prepared(primary, connection, name))
    for database in burdened:
        await primary.elsewhere(database, lambda connection: _drop_owned(connection, name))
    if not await primary.run(lambda connection: _drop(connection, name)):
        where = "`, `".join(burdened) or "the server itself"
        raise NotYet(
            f"nobody can log in, but something in `{where}` depends on the principal: revoke what it was given"
        )


async def _drop(connection: Connection, name: str) -> bool:
    try:
        await connection.execute(principal.drop(name))
    except (asyncpg.DependentObjectsStillExistError, asyncpg.LockNotAvailableError, asyncpg.InternalServerError):
        return False
    return True


async def roll_back_prepared(primary: Reach, connection: Connection, name: str) -> None:
    """Undo what a principal left prepared: it would keep its locks after every session is gone.

    Only its owner or a superuser may, and only from its own database, so we become the principal for one statement.
    """
    for row in await connection.fetch(principal.PREPARED, name):
        await primary.elsewhere(row["name"], _rolling_back(name, row["gid"]))


def _rolling_back(name: str, gid: str) -> Callable[[Connection], Awaitable[None]]:
    async def work(connection: Connection) -> None:
        await connection.execute(f"GRANT {principal.identifier(name)} TO CURRENT_USER")
        await connection.execute(f"SET ROLE {principal.identifier(name)}")
        await connection.execute("ROLLBACK PREPARED '" + gid.replace("'", "''") + "'")

    return work


async def _drop_owned(connection: Connection, name: str) -> None:
    await connection.execute(principal.drop_owned(name))


async def _fetch_names(connection: Connection, query: str, name: str) -> list[str]:
    return [row["name"] for row in await connection.fetch(query, name)]
