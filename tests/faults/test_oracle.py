"""The oracle itself: a world that is clean is called so, and each way in which one is not is named."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from faults.broker_process import INSTANCE
from faults.case import Case
from faults.eyes.store import FileStore
from faults.ground import GROUNDS
from faults.nursery import Nursery, why
from faults.oracle import Outside, look
from faults.yard import Yard


async def on_server(yard: Yard, statement: str) -> None:
    """As the server's owner; `{role}` is the principal of the one lease."""
    connection = await yard.server.connect()
    (role,) = await yard.roles()
    await connection.execute(statement.format(role=role))
    await connection.close()


def in_store(store: Path, statement: str) -> None:
    """As somebody who can write the file."""
    connection = sqlite3.connect(store / "broker.db")
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
EXPIRED = "UPDATE leases SET state = 'expired', revoking_at = 1, access_ended_at = 2, closed_at = 3"
LASTING = {
    "a lease that is over while its secret opens": (EXPIRED, "still opens"),
    "a lease that is over before its secret is": (EXPIRED, "closed before its secret ended"),
    "a lease that is called revoked": (CLOSED, "revoked, and what it gave can't be taken back"),
    "a secret of no lease": ("DELETE FROM leases", "no lease stands for it"),
}
"""Of what nobody can take back."""


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
            in_store(case.store, statement)
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


async def test_what_nobody_can_take_back_is_held_to_its_own_end(nursery: Nursery, tmp_path: Path) -> None:
    """It may open while its lease is open, ending too; never after, and nobody says that it was revoked."""
    async with GROUNDS["aws"]() as ground:
        case = Case(story="one_secret", points="story.held=kill", folder=str(tmp_path), **ground.facts())
        assert nursery.run(case) == -signal.SIGKILL, why(case)
        where = Outside(
            store=FileStore(case.store),
            eyes=ground.eyes,
            log_from=0,
            notes=case.notes,
            registry=case.registry,
            ahead=case.ahead,
        )
        assert await look(where) == []
        for what, (statement, said) in LASTING.items():
            spoiled = shutil.copytree(case.store, tmp_path / what)
            in_store(spoiled, statement)
            found = await look(replace(where, store=FileStore(spoiled)))
            assert any(said in fault for fault in found), (what, found)
        case.ended.write_text(INSTANCE)
        assert nursery.run(replace(case, story="restart", points="")) == 0, why(case)
        assert await look(where) == []
        (note,) = [one for one in map(json.loads, case.notes.read_text().splitlines()) if one["what"] == "secret"]
        assert await ground.eyes.opens(note["user"], note["door"])
        assert nursery.run(replace(case, story="closing", points="")) == 0, why(case)
        assert await look(where, after_a_minute=True) == []
        assert not await ground.eyes.opens(note["user"], note["door"])
        nursery.forget()
        await ground.eyes.close()
