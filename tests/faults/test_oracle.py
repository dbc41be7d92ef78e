"""The oracle itself: a world that is clean is called so, and each way in which one is not is named."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from faults.case import Case
from faults.nursery import why
from faults.yard import Yard


async def on_server(yard: Yard, statement: str) -> None:
    """As the server's owner; `{role}` is the principal of the one lease."""
    connection = await yard.server.connect()
    (role,) = await yard.roles()
    await connection.execute(statement.format(role=role))
    await connection.close()


def in_store(case: Case, statement: str) -> None:
    """As somebody who can write the file."""
    connection = sqlite3.connect(case.store / "broker.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


CLOSED = "UPDATE leases SET state = 'revoked', revoking_at = 1, access_ended_at = 2, closed_at = 2"

ON_SERVER = {
    "a role of no lease": ("CREATE ROLE sj_nobody00_x NOLOGIN", "no lease stands for it"),
    "an active lease of no role": ("DROP ROLE {role}", "there is no such role"),
    "a holder who is shut out": ("ALTER ROLE {role} NOLOGIN", "its password does not open"),
    "a secret that was sent in clear": ("ALTER ROLE {role} PASSWORD 'hunter2'", "something other than a verifier"),
}
IN_STORE = {
    "an active lease of an ended task": ("UPDATE tasks SET ended_at = 1, state = 'done', version = 2", "has ended"),
    "a closed lease that still opens": (CLOSED, "still opens"),
    "a closed lease with a session": (CLOSED, "is open"),
    "a revocation without its receipt": (CLOSED, "0 receipts `lease.revoking`, expected 1"),
    "a receipt that was changed": ("UPDATE receipts SET actor = 'nobody' WHERE number = 2", "is broken at 2"),
    "a receipt that is gone": ("DELETE FROM receipts WHERE kind = 'lease.activated'", "0 receipts `lease.activated`"),
    "an event that is gone": ("DELETE FROM events WHERE n = 2", "not dense"),
}


@asynccontextmanager
async def in_use(yard: Yard) -> AsyncIterator[Case]:
    """A clean world: one live task with one lease, whose holder is logged in; its broker was killed."""
    case = await yard.case("one_secret", "story.held=kill")
    assert yard.nursery.run(case) == -signal.SIGKILL, why(case)
    try:
        assert await yard.ask(case) == []
        yield case
    finally:
        yard.nursery.forget()
        await yard.clear()


@pytest.mark.parametrize("what", [*ON_SERVER, *IN_STORE])
async def test_every_broken_promise_is_named(yard: Yard, what: str) -> None:
    """A clean world is spoiled in one place."""
    async with in_use(yard) as case:
        if what in ON_SERVER:
            statement, said = ON_SERVER[what]
            await on_server(yard, statement)
        else:
            statement, said = IN_STORE[what]
            in_store(case, statement)
        found = await yard.ask(case)
        assert any(said in fault for fault in found), found


async def test_a_secret_at_rest_is_named(yard: Yard) -> None:
    """In any file of the store's folder, and in the server's log."""
    async with in_use(yard) as case:
        (case.store / "left-over").write_text(case.notes.read_text())
        assert any("stands in" in fault and "left-over" in fault for fault in await yard.ask(case))
        (case.store / "left-over").unlink()
        with (yard.server.folder / "log").open("a") as log:
            log.write(case.notes.read_text())
        assert any("in the server's log" in fault for fault in await yard.ask(case))


async def test_a_session_of_a_role_that_is_gone_is_named(yard: Yard) -> None:
    """Dropped by hand under its holder."""
    async with in_use(yard) as case:
        await on_server(yard, "DROP ROLE {role}")
        assert any("of a role that is gone is open" in fault for fault in await yard.ask(case))
