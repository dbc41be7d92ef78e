"""T13: a secret is in its one answer, and nowhere else: not in the store, the log, a metric, a repr, a stream."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.engines.protocol import Issued
from broker.errors import OutcomeUnknown
from broker.lifecycle.obtain import HandOver
from broker.model.lease import Handle
from broker.model.role import Role
from broker.wire.credentials import CredentialTold
from ca.runtime.secret import Secret
from fakes.canary import sightings, written  # noqa: F401 - a fixture
from fakes.clock import ManualClock
from fakes.front import OTHER, ROLE, Front, call, front, obtained, opened
from fakes.stores import on_disk, on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget
from fakes.world import living

pytestmark = pytest.mark.usefixtures("on_every_store")


class Keeping(FakeEngine):
    """An engine that keeps every secret it ever made."""

    def __init__(self, target: FakeTarget) -> None:
        super().__init__(target)
        self.made: list[str] = []

    async def create(self, handle: Handle, role: Role, *moments: Any) -> Issued:
        return self._kept(await super().create(handle, role, *moments))

    async def replace(self, handle: Handle, role: Role, *moments: Any) -> Issued:
        return self._kept(await super().replace(handle, role, *moments))

    def _kept(self, issued: Issued) -> Issued:
        self.made.append(issued.secret["password"].reveal())
        return issued


@pytest.fixture
def engine() -> Keeping:
    """The hands."""
    return Keeping(FakeTarget(ManualClock()))


@pytest.fixture
async def house(tmp_path: Path, engine: Keeping) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path, engine=engine) as found:
        yield found


async def everything_said(house: Front, task: str) -> bytes:
    """Every answer about the task, for its process and for another one."""
    said = b""
    for path in (
        f"tasks/{task}",
        f"tasks/{task}/tree",
        f"tasks/{task}/report",
        f"leases?task={task}",
        "tasks",
        "roles",
    ):
        for caller in (house.agent(), house.agent(instance=OTHER)):
            async with house.session(caller) as session, session.get(f"/v1/{path}") as answer:
                said += await answer.read()
    async with house.session(house.agent()) as session, session.get(f"/v1/audit?task={task}") as answer:
        said += await answer.read()
    async with house.session(house.agent()) as session:
        headers = {"Last-Event-ID": "none.0"}
        async with session.get(f"/v1/events?task={task}", headers=headers) as answer:
            said += await answer.content.readuntil(b"resync\n") + await answer.content.readuntil(b"\n\n")
    return said


async def test_it_stands_nowhere_but_in_its_answer(
    house: Front,
    engine: Keeping,
    tmp_path: Path,
    written: io.StringIO,  # noqa: F811 - the fixture
) -> None:
    """Asked, asked again, acknowledged, refused, failed, renewed, given back, ended; then every place is searched."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        first = await obtained(session, task, Idempotency_Key="k")
        second = await obtained(session, task, Idempotency_Key="k")
        assert first["secret"] != second["secret"]
        lease = second["lease"]["id"]
        assert (await call(session, "POST", f"/v1/leases/{lease}/ack", {}))[0] == 200
        asking = ("POST", f"/v1/tasks/{task}/credentials", {"role": ROLE})
        refused = [await call(session, *asking, Idempotency_Key="k")]
        engine.fail("create", after=True, error=OutcomeUnknown("no answer came"))
        refused.append(await call(session, *asking))
        refused.append(await call(session, asking[0], asking[1], {"role": ROLE, "ttl": "1m"}, Idempotency_Key="k"))
        assert [status for status, _ in refused] == [409, 503, 409]
        await house.clock.advance(10)  # the target is asked again
        renewed = await call(session, "POST", f"/v1/leases/{lease}/renew", {})
        beaten = await call(session, "POST", f"/v1/tasks/{task}/heartbeat", {"leases": [lease]})
        third = await obtained(session, task)
        back = await call(session, "DELETE", f"/v1/leases/{third['lease']['id']}")
        await house.tick()
        said = await everything_said(house, task)
        ended = await call(session, "POST", f"/v1/tasks/{task}/end", {})
        await house.tick()
    assert {one["secret"]["password"] for one in (first, second, third)} <= set(engine.made)
    places = await on_disk(tmp_path)
    places |= {
        "log": written.getvalue().encode(),
        "metrics": house.gate.metrics.render(),
        "answers": repr([refused, renewed, beaten, back, ended]).encode() + said,
        "receipts": repr(await house.house.receipts()).encode(),
        "events": repr(await house.house.events()).encode(),
        "world": repr(house.gate).encode() + repr(house.house.world).encode(),
    }
    assert len(places["log"]) > 1000
    assert any(len(content) > 10_000 for name, content in places.items() if name.startswith("broker.db"))
    assert sightings(engine.made, places) == []
    assert sightings(engine.made, {"the one answer": repr(second).encode()}) != []


async def test_what_holds_it_on_its_way_shows_nothing(tmp_path: Path, engine: Keeping) -> None:
    """Neither a repr, nor a format, nor a traceback's locals: only the JSON of the one answer."""
    async with living(tmp_path, engine=engine) as house:
        handed: HandOver = await house.obtain(await house.open())
    told = CredentialTold.model_construct(secret=dict(handed.issued.secret))
    shown = f"{handed!r} {handed.issued!r} {handed.issued} {told!r} {told} {told.model_dump()!r}"
    assert sightings(engine.made, {"shown": shown.encode()}) == []
    assert Secret(engine.made[0]) == handed.issued.secret["password"]
