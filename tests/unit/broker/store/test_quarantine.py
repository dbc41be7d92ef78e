"""A row that can't be read stops no other; it is set aside, and what it stands for outside is left as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Fenced
from broker.events.feed import Feed
from broker.lifecycle.report import report
from broker.loops.gauges import Gauges
from broker.model.event import EventKind
from broker.model.lease import LeaseState
from broker.model.task import TaskState
from broker.store import leases, outbox, quarantine, tasks
from broker.store.outbox import Message
from broker.store.quarantine import Unreadable
from ca.runtime.metrics import Metrics
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")
DAMAGE = {
    "facts that are no JSON": "UPDATE leases SET facts = '{' WHERE id = $1",
    "facts that are no mapping": "UPDATE leases SET facts = '[1]' WHERE id = $1",
    "an unknown state": "UPDATE leases SET state = 'confused' WHERE id = $1",
    "an unknown reason": "UPDATE leases SET close_reason = 'because' WHERE id = $1",
    "a guarantee of nothing": "UPDATE leases SET guarantee = '{}' WHERE id = $1",
    "a time beyond all times": "UPDATE leases SET until = 9000000000000000000 WHERE id = $1",
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A broker."""
    async with living(tmp_path) as found:
        yield found


async def damage(house: House, sql: str, key: str | int) -> None:
    """Change a row as no line of ours would."""
    await house.world.database.write(lambda tx: tx.execute(sql, key))


@pytest.mark.parametrize("how", DAMAGE)
async def test_a_bad_lease_stops_no_other(house: House, how: str) -> None:
    """Those of the same task and target are ended, listed and reported; nothing is ever said to be final about it."""
    task = await house.open()
    bad, good = await house.held(task), await house.held(task)
    await damage(house, DAMAGE[how], bad.lease.id)
    await house.end(task)
    await house.reap()
    await house.reap()
    assert (await house.lease(good.lease.id)).state is LeaseState.REVOKED
    assert [lease.id for lease in await house.leases()] == [good.lease.id]
    with pytest.raises(Unreadable):
        await house.lease(bad.lease.id)
    found = await house.world.database.read(lambda tx: report(tx, task.id, house.clock.now()))
    assert (len(found.lines), found.unreadable, found.is_final) == (1, 1, False)
    (row,) = await house.world.database.read(quarantine.all_of)
    assert (row.table, row.key) == ("leases", bad.lease.id)
    assert EventKind.TASK_CLOSED not in [event.kind for event in await house.events()]


async def test_its_principal_is_neither_destroyed_nor_a_stranger(house: House) -> None:
    """However often it is swept: it is ours, and nobody knows in which state."""
    task = await house.open()
    bad = await house.held(task)
    await damage(house, DAMAGE["facts that are no JSON"], bad.lease.id)
    await house.end(task)
    for _ in range(4):
        await house.reap()
        swept = await house.sweep()
        assert (swept.destroyed, swept.quarantined, swept.unreadable) == ([], [], [bad.lease.handle.name])
    assert bad.lease.handle.name in house.engine.target.principals
    metrics = Metrics()
    await Gauges(house.world, metrics).tick(house.clock.now())
    assert metrics.value("sojourn_rows_quarantined", table="leases") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE tasks SET scope = 'nothing' WHERE id = $1",
        "UPDATE tasks SET owner = 'nobody' WHERE id = $1",
        "UPDATE tasks SET state = 'confused' WHERE id = $1",
    ],
)
async def test_a_bad_task_is_given_nothing_and_can_be_ended(house: House, sql: str) -> None:
    """With all that hangs on it; others are not touched by it."""
    root = await house.open()
    task = await house.open(root)
    child = await house.open(task)
    held, below = await house.held(task), await house.held(child)
    other = await house.held(await house.open())
    await damage(house, sql, task.id)
    with pytest.raises((Unreadable, Fenced)):
        await house.obtain(task)
    assert (await house.task(task.id)).unreadable is not None
    assert len(await house.world.database.read(lambda tx: tasks.page(tx, after=None, limit=10))) == 4
    assert len(await house.end(root)) == 3
    await house.reap()
    states = {lease.id: lease.state for lease in await house.leases()}
    assert states[held.lease.id] is states[below.lease.id] is LeaseState.REVOKED
    assert states[other.lease.id] is LeaseState.ACTIVE
    assert EventKind.TASK_CLOSED in [event.kind for event in await house.events()]


async def test_a_bad_task_that_is_due_is_ended_too(house: House) -> None:
    """Its deadline stands in a column of its own."""
    task = await house.open(deadline=house.clock.now() + timedelta(minutes=1))
    fine = await house.open(deadline=house.clock.now() + timedelta(minutes=1))
    await damage(house, "UPDATE tasks SET scope = '' WHERE id = $1", task.id)
    await house.clock.advance(61)
    assert await house.deadlines.tick(house.clock.now()) == 2
    assert {(await house.task(one.id)).state for one in (task, fine)} == {TaskState.EXPIRED}


async def test_a_bad_event_keeps_its_number_and_stops_no_reader(house: House) -> None:
    """The order stays dense; the feed tells that something can't be read, and goes on."""
    for _ in range(3):
        await house.held(await house.open())
    await damage(house, "UPDATE events SET kind = 'gossip', body = '{' WHERE n = $1", 2)
    feed = Feed(house.world.database)
    feed._epoch = (await house.events())[0].epoch
    await feed.tick(house.clock.now())
    assert [event.kind for event in await house.events()][1] is EventKind.UNREADABLE
    assert feed.epoch.n == len(await house.events())
    assert [(one.table, one.key) for one in await house.world.database.read(quarantine.all_of)] == [("events", "2")]


async def test_a_bad_message_stops_no_other(house: House) -> None:
    """The party hears the rest."""
    now, database = house.clock.now(), house.world.database
    for name in ("one", "two"):
        message = Message(id=name, party="attestor", kind="task.ended", body={})
        await database.write(lambda tx, message=message: outbox.add(tx, message, now))  # type: ignore[misc]
    await damage(house, "UPDATE outbox SET body = 'x' WHERE id = $1", "one")
    assert [one.id for one in await database.read(lambda tx: outbox.due(tx, "attestor", now, 10))] == ["two"]


async def test_a_thousand_bad_rows_are_set_aside_once(house: House) -> None:
    """Each list meets each of them at most once; then they cost nothing."""
    task = await house.open()
    for _ in range(30):
        await house.held(task)
    await house.world.database.write(lambda tx: tx.execute("UPDATE leases SET facts = '{' WHERE id <> $1", ""))
    good = await house.held(task)
    assert [one.id for one in await house.leases()] == [good.lease.id]
    assert len(await house.world.database.read(quarantine.all_of)) == 30
    assert await house.world.database.read(lambda tx: leases.set_aside_of(tx, task.id)) == 30
