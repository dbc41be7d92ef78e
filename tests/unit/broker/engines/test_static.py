"""Values that rest sealed, and what is said of them when they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.engines.protocol import Lent
from broker.engines.static import Static
from broker.lifecycle.report import report
from broker.model.lease import LeaseState
from broker.model.report import Fate
from broker.model.role import NewAccess, OpenSessions
from broker.settings import TargetSettings
from ca.errors import Malformed, NotFound, Unavailable
from ca.runtime.document import BadSettings
from ca.runtime.secret import Secret
from ca.runtime.settings import loads
from ca.seal import AesSeal, SealBroken
from fakes.clock import ManualClock
from fakes.lent_account import Shelf, shelf, value_role
from fakes.world import role

MARK = "hunter2-hunter2-hunter2"


async def stored(there: Shelf, folder: Path) -> bytes:
    """Every byte the store has written."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_value_leaves_through_a_lease_and_rests_nowhere(tmp_path: Path) -> None:
    """The newest version with its number and the facts beside it; the store shows nothing of it."""
    wanted = value_role(handed_as="api_key", fields={"host": "api.example.org"})
    async with shelf(tmp_path, the_role=wanted) as there:
        await there.vault.write("value/shelf/key", Secret("an old one"))
        await there.vault.write("value/shelf/key", Secret(MARK))
        handed = await there.house.held(await there.house.open())
        assert handed.issued.fields == {"host": "api.example.org", "version": 2}
        assert handed.issued.secret["api_key"].reveal() == MARK
        assert MARK not in repr(handed)
        assert MARK.encode() not in await stored(there, tmp_path)


async def test_its_end_is_told_as_it_is(tmp_path: Path) -> None:
    """Nothing ends it but a rotation: the lease closes at once, as expired, and the report says that it lives on."""
    async with shelf(tmp_path, the_role=value_role()) as there:
        house = there.house
        await there.vault.write("value/shelf/key", Secret(MARK))
        task = await house.open()
        held = await house.held(task)
        assert held.lease.guarantee.new_access is NewAccess.AT_ROTATION
        assert held.lease.guarantee.open_sessions is OpenSessions.SURVIVE
        await house.end(task)
        await house.reap()
        lease = await house.lease(held.lease.id)
        assert (lease.state, lease.access_ended_at) == (LeaseState.EXPIRED, None)
        told = await house.world.database.read(lambda tx: report(tx, task.id, house.clock.now()))
        (line,) = told.lines
        assert (line.fate, line.lives_until, line.sessions_may_live, told.is_final) == (
            Fate.LIVES_ON, None, True, True,
        )  # fmt: skip


async def test_a_value_that_was_never_put_is_said(tmp_path: Path) -> None:
    """With the command that puts it; nothing is left open, and nothing is said to live on."""
    async with shelf(tmp_path, the_role=value_role()) as there:
        task = await there.house.open()
        with pytest.raises(NotFound, match="sojourn secret put shelf/key"):
            await there.house.obtain(task)
        await there.house.reap()
        told = await there.house.world.database.read(lambda tx: report(tx, task.id, there.house.clock.now()))
        assert [line.fate for line in told.lines] == [Fate.NEVER_MADE]
        assert not await there.house.world.database.read(_open)


async def _open(tx: Any) -> list[Any]:
    return list(await tx.fetch("SELECT id FROM leases WHERE closed_at IS NULL ORDER BY id"))


async def test_a_role_may_name_another_value(tmp_path: Path) -> None:
    """Two roles, one value."""
    async with shelf(tmp_path, the_role=value_role("reader", value="key")) as there:
        await there.vault.write("value/shelf/key", Secret(MARK))
        handed = await there.house.obtain(await there.house.open())
        assert handed.issued.secret["value"].reveal() == MARK


async def test_without_a_seal_or_with_another_nothing_is_handed_over(tmp_path: Path) -> None:
    """A clear refusal each time, without the value."""
    clock, wanted = ManualClock(), value_role()
    now, engine = clock.now(), Static(Lent(clock=clock))
    with pytest.raises(Unavailable, match=r"keys\.seal"):
        await engine.create(engine.plan(wanted, "n"), wanted, now, now)
    async with shelf(tmp_path, the_role=wanted, clock=clock) as there:
        await there.vault.write("value/shelf/key", Secret(MARK))
        lent = there.house.engine._lent
        there.house.engine._lent = Lent(
            clock=clock, vault=type(lent.vault)(lent.vault.database, AesSeal(b"x" * 32), clock)
        )
        with pytest.raises(SealBroken) as broken:
            await there.house.obtain(await there.house.open())
        assert MARK not in f"{broken.value!r} {broken.value.__cause__!r}"
        (vault, found) = await there.house.engine.check([wanted], "")
        assert (vault.well, found.well) == (True, False)


def test_what_a_role_may_say() -> None:
    """A value or an account, and no fact that would hide what is handed over."""
    engine = Static(Lent(clock=ManualClock()))
    for wrong in (
        {"value": "key", "check_out": {"target": "a", "account": "b"}},
        {"value": "../key"},
        {"handed_as": "Value"},
        {"fields": {"version": 1}},
        {"fields": {"value": "x"}},
        {"check_out": {"target": "a", "account": "b"}, "fields": {"password": "x"}},
        {"check_out": {"target": "a", "account": "b\n"}},
        {"check_out": {"target": "a", "account": ""}},
        {"check_out": {"target": "a"}},
        {"groups": ["readers"]},
    ):
        with pytest.raises(Malformed, match="shelf/readonly"):
            engine.plan(role(target="shelf", engine="static", settings=wrong), "n")


def test_a_target_of_this_kind_is_read_from_settings() -> None:
    """And a value is never among them."""
    said = {
        "engine": {"kind": "static"},
        "roles": {"key": {"sensitivity": "confidential", "engine": {"fields": {"host": "a", "port": 1}}}},
    }
    target = loads(json.dumps(said), "shelf.yaml", TargetSettings)
    (wanted,) = target.to_roles("shelf").values()
    handle = Static(Lent(clock=ManualClock())).plan(wanted, "n")
    assert handle.facts == {"value": "value/shelf/key"}
    with pytest.raises(BadSettings):
        loads(json.dumps({**said, "engine": {"kind": "static", "value": MARK}}), "shelf.yaml", TargetSettings)
