"""Tasks' own identities: asked for when the attestor server is there, confirmed, and gone with the task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attestor.wire.task_identity import Grant, Granted
from broker.engines.svid import TARGET, Svid
from broker.errors import Fenced
from broker.lifecycle import end_task, withdraw
from broker.lifecycle.identity import give
from broker.loops.identities import EVERY, Identities
from broker.loops.reaper import Reaper
from broker.loops.sweep import Sweep
from broker.model.event import EventKind
from broker.model.ids import InstanceId
from broker.model.lease import CloseReason, Lease, LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.report import Fate, Line
from broker.model.task import EndReason, Task
from broker.targets.target import open_target
from ca.errors import Conflict, Problem, Unavailable
from ca.runtime.clock import micros
from ca.spiffe.id import SpiffeId
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

INSTANCE = InstanceId("1" * 32)


@dataclass
class Server:
    """What an attestor server says; `troubles` are raised by the next grants, before or after they happened."""

    connected: bool = True
    down: bool = False
    granted: dict[str, Grant] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    confirmed: list[str] = field(default_factory=list)
    before: list[Problem] = field(default_factory=list)
    after: list[Problem] = field(default_factory=list)
    meanwhile: Callable[[], object] | None = None

    async def grant(self, grant: Grant) -> Granted:
        self._there()
        if self.before:
            raise self.before.pop(0)
        if grant.name in self.taken or any(one.task == grant.task for one in self.granted.values()):
            raise Conflict("it is in the way")
        self.granted[grant.name] = grant
        self.taken.add(grant.name)
        if self.after:
            raise self.after.pop(0)
        return Granted(id=SpiffeId.parse(f"spiffe://example.org/task/{grant.task}"), made=True)

    async def withdraw(self, name: str, *, close: bool = False) -> int:
        self._there()
        self.taken.add(name)
        return int(self.granted.pop(name, None) is not None)

    async def names(self, prefix: str) -> Sequence[str]:
        self._there()
        return sorted(name for name in self.granted if name.startswith(prefix))

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        self._there()
        self.confirmed += names
        return []

    def _there(self) -> None:
        if self.down:
            raise Unavailable("nobody answers")

    @property
    def tasks(self) -> list[str]:
        """Which have an identity."""
        return sorted(grant.task for grant in self.granted.values())


@dataclass
class Place:
    """A broker beside that server."""

    house: House
    server: Server
    loop: Identities

    async def open(self, **changes: Any) -> Task:
        task = await self.house.open(instance=INSTANCE, **changes)
        self.house.world.name_soon(task)
        return task

    async def tick(self, seconds: float = 0) -> int:
        if seconds:
            await self.house.clock.advance(seconds)
        return await self.loop.tick(self.house.clock.now())

    async def lease(self, task: Task) -> Lease:
        """The newest one of a task."""
        return [one for one in await self.house.leases() if one.task == task.id and one.is_identity][-1]


@asynccontextmanager
async def place(folder: Path, server: Server | None = None) -> AsyncIterator[Place]:
    """A broker whose attestor server is ours."""
    server = server or Server()
    async with living(folder) as house, open_target(TARGET, house.clock) as calls:
        house.world = replace(
            house.world,
            engines={**house.world.engines, TARGET: Svid(server)},
            targets={**house.world.targets, TARGET: calls},
        )
        house.reaper, house.sweeper = Reaper(house.world), Sweep(house.world)
        yield Place(house, server, Identities(house.world))


async def test_a_task_gets_it_and_loses_it_with_its_end(tmp_path: Path) -> None:
    """Active at the first tick, ending with the task, told in the report."""
    async with place(tmp_path) as here:
        task = await here.open()
        assert await here.tick() == 1
        lease = await here.lease(task)
        (grant,) = here.server.granted.values()
        assert (grant.task, grant.instance, grant.name) == (task.id, INSTANCE, lease.handle.name)
        assert grant.ends_at == lease.until == lease.last == task.deadline
        assert lease.state is LeaseState.ACTIVE
        await here.house.end(task)
        await here.house.reap()
        assert here.server.tasks == []
        line = Line.of(await here.lease(task))
        assert (line.fate, line.role, line.close_reason) == (Fate.GONE, "svid/task", CloseReason.TASK_ENDED)


async def test_it_has_no_window_and_nobody_acknowledges_it(tmp_path: Path) -> None:
    """Long after its birth it is what it was, whatever the task was narrowed to; it is confirmed meanwhile."""
    async with place(tmp_path) as here:
        task = await here.open()
        await here.tick()
        for _ in range(3):
            await here.tick(EVERY)
            await here.house.reap()
        assert here.server.confirmed == [(await here.lease(task)).handle.name] * 3
        await here.house.clock.advance(3600)
        await here.house.reap()
        assert (await here.lease(task)).state is LeaseState.ACTIVE
        await here.house.world.database.write(lambda tx: _outdated(tx, task))
        await here.house.reap()
        assert (await here.lease(task)).task_version == 2
        assert here.server.tasks == [task.id]


async def _outdated(tx: object, task: Task) -> None:
    from broker.store import tasks

    await tasks.update(tx, replace(task, version=2), 1)  # type: ignore[arg-type]


async def test_a_server_that_is_away_stops_no_task(tmp_path: Path) -> None:
    """No attempt is made while the link is down; the identity comes when it is back, also after a restart."""
    server = Server(connected=False)
    async with place(tmp_path, server) as here:
        task = await here.open()
        assert await here.tick() == 0
        assert await here.house.leases() == []
    server.connected = True
    async with place(tmp_path, server) as here:
        assert await here.tick() == 1
        assert server.tasks == [task.id]


async def test_an_answer_that_was_lost_is_settled_and_asked_for_anew(tmp_path: Path) -> None:
    """Traps 21: what came of the first call is withdrawn under its name; the second has another."""
    async with place(tmp_path, Server(after=[Unavailable("it broke")])) as here:
        task = await here.open()
        assert await here.tick() == 0
        first = await here.lease(task)
        assert first.state is LeaseState.IN_DOUBT
        assert here.server.tasks == [task.id]
        await here.house.clock.advance(1)
        await here.house.reap()
        assert here.server.tasks == []
        for _ in range(30):
            await here.tick(1)
            await here.house.reap()
        assert (await here.house.lease(first.id)).close_reason is CloseReason.NEVER_MADE
        assert (await here.lease(task)).state is LeaseState.ACTIVE
        assert here.server.tasks == [task.id]


async def test_killed_between_asking_and_noting(tmp_path: Path) -> None:
    """The next broker finds the intent, and ends what may have come of it before it asks again."""
    server = Server()
    async with place(tmp_path, server) as here:
        task = await here.open()
        await here.tick()
        await here.house.world.database.write(_as_intended)
    async with place(tmp_path, server) as here:
        await here.house.reap()
        assert server.tasks == []
        for _ in range(30):
            await here.tick(1)
            await here.house.reap()
        assert server.tasks == [task.id]
        assert len(server.taken) == 2


async def _as_intended(tx: object) -> None:
    """As the store is when the broker dies before its second write."""
    await tx.execute("UPDATE leases SET state = 'intended', activated_at = NULL")  # type: ignore[attr-defined]


async def test_a_server_that_is_away_at_the_end_loses_nothing(tmp_path: Path) -> None:
    """The withdrawal is tried until it is answered, and nobody says meanwhile that the task lives."""
    async with place(tmp_path) as here:
        task = await here.open()
        await here.tick()
        here.server.down = True
        await here.house.end(task)
        await here.house.reap()
        here.server.confirmed.clear()
        assert (await here.lease(task)).state is LeaseState.REVOKING
        here.server.down = False
        for _ in range(8):
            await here.tick(EVERY)
            await here.house.reap()
        assert here.server.confirmed == []
        assert here.server.tasks == []
        assert (await here.lease(task)).state is LeaseState.REVOKED


async def test_what_is_refused_is_asked_for_at_growing_intervals(tmp_path: Path) -> None:
    """And the task goes on without."""
    async with place(tmp_path, Server(before=[Conflict("no")] * 3)) as here:
        task = await here.open()
        tried: list[int] = []
        for second in range(120):
            left = len(here.server.before) + (not here.server.tasks)
            await here.tick(1)
            await here.house.reap()
            if len(here.server.before) + (not here.server.tasks) < left:
                tried.append(second)
        assert len(tried) == 4
        pauses = [later - sooner for sooner, later in pairwise(tried)]
        assert pauses == sorted(pauses)
        assert pauses[-1] > pauses[0]
        assert here.server.tasks == [task.id]
        assert (await here.house.task(task.id)).is_live


async def test_what_an_operator_took_is_not_asked_for_again(tmp_path: Path) -> None:
    """Nor what the task itself gave back."""
    async with place(tmp_path) as here:
        task = await here.open()
        await here.tick()
        await withdraw.begin(
            here.house.world, (await here.lease(task)).id, CloseReason.OPERATOR, here.house.clock.now()
        )
        await here.house.reap()
        await here.tick(EVERY)
        assert here.server.tasks == []


async def test_a_task_of_no_instance_has_none(tmp_path: Path) -> None:
    """It is bound to nobody who could hold it."""
    async with place(tmp_path) as here:
        await here.house.open()
        assert await here.tick() == 0
        assert here.server.taken == set()


async def test_a_task_that_ended_meanwhile_keeps_none(tmp_path: Path) -> None:
    """The end comes between the intent and the activation: what was granted is taken back in the same breath."""
    async with place(tmp_path) as here:
        task = await here.open()
        engine, grant = here.server, here.server.grant

        async def end_first(asked: Grant) -> Granted:
            granted = await grant(asked)
            await here.house.end(task, EndReason.SAID_SO)
            return granted

        engine.grant = end_first  # type: ignore[method-assign, assignment]
        assert await here.tick() == 0
        assert here.server.tasks == []
        await here.house.reap()
        assert here.server.taken


async def test_one_that_was_lost_at_the_server_is_found_missing(tmp_path: Path) -> None:
    """Its lease is closed by the sweep, and the task gets another."""
    async with place(tmp_path) as here:
        task = await here.open()
        await here.tick()
        here.server.granted.clear()
        await here.house.sweeper.tick(here.house.clock.now())
        await here.house.reap()
        await here.tick(EVERY)
        assert here.server.tasks == [task.id]


async def test_it_ends_with_the_first_task_of_its_chain_to_the_second_and_is_on_record(tmp_path: Path) -> None:
    """Never later than any deadline above it; given by the broker itself, and told in its own tree."""
    async with place(tmp_path) as there:
        now = there.house.clock.now()
        top = await there.house.open(deadline=now + timedelta(minutes=10, milliseconds=900))
        task = await there.open(parent=top)
        await there.tick()
        lease, end = await there.lease(task), now + timedelta(minutes=10)
        assert (lease.until, lease.last, lease.ack_by, lease.due_at) == (end,) * 4
        assert (lease.state, lease.activated_at, lease.task_version) == (LeaseState.ACTIVE, now, task.version)
        assert lease.handle.facts["create_by"] == micros(now + timedelta(seconds=10))
        us = f"broker:{there.house.world.broker}"
        said = [entry.receipt for entry in await there.house.receipts()]
        assert [(one.kind, one.actor, one.lease) for one in said] == [
            (ReceiptKind.LEASE_INTENDED, us, lease.id),
            (ReceiptKind.LEASE_ACTIVATED, us, lease.id),
        ]
        (event,) = await there.house.events()
        assert (event.kind, event.root, event.task, event.lease) == (EventKind.LEASE_ISSUED, top.id, task.id, lease.id)
        assert not len(there.house.world.in_flight)


async def test_a_task_whose_end_could_not_be_written_gets_none(tmp_path: Path) -> None:
    """Neither before the server is asked nor after it answered."""
    async with place(tmp_path) as there:
        world, now = there.house.world, there.house.clock.now()
        early, late = await there.house.open(instance=INSTANCE), await there.house.open(instance=INSTANCE)
        world.unrecorded[early.id] = end_task.because(world, early.id, EndReason.SAID_SO, now)
        with pytest.raises(Fenced):
            await give(world, early.id, now)
        assert (there.server.taken, await there.house.leases()) == (set(), [])
        granted = there.server.grant

        async def grant(asked: Grant) -> Granted:
            world.unrecorded[late.id] = end_task.because(world, late.id, EndReason.SAID_SO, now)
            return await granted(asked)

        there.server.grant = grant  # type: ignore[method-assign,assignment]
        with pytest.raises(Fenced):
            await give(world, late.id, now)
        assert there.server.tasks == []
