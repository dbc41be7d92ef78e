"""The tables: what goes in comes out, what must be refused is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import NotPossible
from broker.lifecycle.report import report
from broker.model.caller import Operator, Verb
from broker.model.ids import InstanceId, new_lease
from broker.model.lease import LeaseEvent, LeaseState
from broker.model.report import Fate
from broker.model.scope import Budget, Scope, Sensitivity, patterns
from broker.model.task import TaskState
from broker.store import installation, leases, operators, receipts, tasks
from ca.errors import Conflict, NotFound, Stale
from ca.runtime.past import Past
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import AGENT, living

pytestmark = pytest.mark.usefixtures("on_every_store")


async def test_a_task_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field."""
    async with living(tmp_path) as house:
        scope = Scope(
            roles=patterns(["a/*"]),
            tools=patterns(["t"]),
            destinations=patterns(["d/e"]),
            sensitivity=Sensitivity.CONFIDENTIAL,
            budget=Budget(secrets=3),
        )
        task = await house.open(
            scope=scope,
            instance=InstanceId("a" * 32),
            heartbeat=timedelta(seconds=7),
            key="k" * 43,
            purpose="für später",
        )
        assert await house.task(task.id) == task


async def test_a_lease_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field, and a second writer of the same version is stale."""
    async with living(tmp_path) as house:
        lease = (await house.obtain(await house.open())).lease
        assert await house.lease(lease.id) == lease
        database = house.world.database
        await database.write(lambda tx: leases.keep(tx, lease, trouble="none"))
        with pytest.raises(Stale):
            await database.write(lambda tx: leases.keep(tx, lease, trouble="other"))
        with pytest.raises(NotPossible):
            await database.write(lambda tx: leases.move(tx, lease, LeaseEvent.GONE))
        with pytest.raises(NotFound):
            await database.read(lambda tx: leases.get(tx, new_lease(house.clock.now())))


async def test_two_leases_never_share_a_name(tmp_path: Path) -> None:
    """One target, one name, one lease."""
    async with living(tmp_path) as house:
        lease = (await house.obtain(await house.open())).lease
        twin = replace(lease, id=new_lease(house.clock.now()))
        with pytest.raises(Conflict):
            await house.world.database.write(lambda tx: leases.insert(tx, twin))


async def test_a_task_is_updated_only_at_its_version_and_only_while_it_lives(tmp_path: Path) -> None:
    """Compare-and-swap."""
    async with living(tmp_path) as house:
        task = await house.open()
        waiting = replace(task, state=TaskState.WAITING, version=2)
        await house.world.database.write(lambda tx: tasks.update(tx, waiting, 1))
        assert await house.task(task.id) == waiting
        with pytest.raises(Stale):
            await house.world.database.write(lambda tx: tasks.update(tx, waiting, 1))
        await house.end(task)
        with pytest.raises(Stale):
            await house.world.database.write(lambda tx: tasks.update(tx, replace(waiting, version=4), 3))


async def test_pages_go_on_where_they_stopped(tmp_path: Path) -> None:
    """Tasks, leases and receipts, in an order that does not change."""
    async with living(tmp_path) as house:
        database = house.world.database
        opened = sorted([(await house.open()).id for _ in range(5)])
        for task in opened:
            await house.obtain(await house.task(task))
        first = await database.read(lambda tx: tasks.page(tx, after=None, limit=3))
        rest = await database.read(lambda tx: tasks.page(tx, after=first[-1].id, limit=3))
        assert [task.id for task in (*first, *rest)] == opened
        held = await database.read(lambda tx: leases.page(tx, after=None, limit=100, task=opened[0]))
        assert [lease.task for lease in held] == opened[:1]
        start = await database.read(lambda tx: receipts.page(tx, after=None, limit=4))
        more = await database.read(lambda tx: receipts.page(tx, after=(start[-1].writer, start[-1].number), limit=100))
        assert [entry.number for entry in (*start, *more)] == list(range(1, 16))
        assert await database.read(lambda tx: tasks.count_live(tx, AGENT)) == 5


async def test_each_life_of_a_broker_writes_a_chain_of_its_own(tmp_path: Path) -> None:
    """And every chain verifies from its first entry."""
    from broker.audit.verify import verify

    for _ in range(2):
        async with living(tmp_path) as house:
            await house.obtain(await house.open())
    async with living(tmp_path) as house:
        writers = await house.world.database.read(receipts.writers)
        assert len(writers) == 2
        for writer in writers:
            verify(await house.world.database.read(lambda tx, writer=writer: receipts.chain(tx, writer)))  # type: ignore[misc]


async def test_an_installation_is_made_once(tmp_path: Path) -> None:
    """Reopening the store finds the same id, key and incarnation."""
    async with living(tmp_path) as house:
        first = house.world.installation
    async with living(tmp_path) as house:
        assert house.world.installation == first
        now = house.clock.now()
        later = await house.world.database.write(lambda tx: installation.begin_incarnation(tx, now))
        assert (later.id, later.name_key, later.incarnation == first.incarnation) == (first.id, first.name_key, False)
        assert first.name_key.hex() not in repr(first)
        assert (first.quarantined_at, later.quarantined_at) == (None, now)


def _past(*names: str, reached: int = 0) -> Past:
    return Past(names=frozenset(names[:-1]), next=names[-1], reached=reached)


async def test_a_store_without_the_past_it_had_begins_another_life(tmp_path: Path) -> None:
    """Its name is compared and written anew at each start; where it goes on nothing changes."""
    async with living(tmp_path) as house:
        database, now, first = house.world.database, house.clock.now(), house.world.installation

        async def start(past: Past) -> installation.Installation:
            return await database.write(lambda tx: installation.settle(tx, now, past))

        assert await start(_past("a")) == first  # nothing was known of it yet
        assert await start(_past("a", "a")) == first
        assert await start(_past("a", "b", "c")) == first
        assert await start(_past("c", "c")) == first
        other = await start(_past("b", "d"))
        assert (other.incarnation != first.incarnation, other.quarantined_at) == (True, now)
        assert await start(_past("d", "d")) == other
        await house.end(await house.open())
        assert await start(_past("d", "d", reached=1)) == other
        assert (await start(_past("d", "d", reached=2))).incarnation != other.incarnation


async def test_a_target_is_in_quarantine_until_it_is_adopted_in_this_life(tmp_path: Path) -> None:
    """Each by itself; another life begins the quarantine again."""
    async with living(tmp_path) as house:
        database, now = house.world.database, house.clock.now()

        async def quarantined() -> list[bool]:
            found = [await database.read(lambda tx, at=at: installation.quarantined(tx, at)) for at in ("one", "two")]  # type: ignore[misc]
            return [since == now for since in found]

        assert await quarantined() == [False, False]
        await database.write(lambda tx: installation.begin_incarnation(tx, now))
        assert await quarantined() == [True, True]
        await database.write(lambda tx: installation.adopt(tx, "one", "ada", now))
        assert await quarantined() == [False, True]
        await database.write(lambda tx: installation.begin_incarnation(tx, now))
        assert await quarantined() == [True, True]
        await database.write(lambda tx: installation.adopt(tx, "one", "ada", now))
        assert await quarantined() == [False, True]


async def test_operators_are_bound_to_one_certificate_each(tmp_path: Path) -> None:
    """Listed by name with their verbs, and removed by name."""
    async with living(tmp_path) as house:
        database, now = house.world.database, house.clock.now()
        eve = Operator(name="eve", verbs=frozenset({Verb.END_TASKS, Verb.READ_TASKS}))
        await database.write(lambda tx: operators.add(tx, eve, b"one", "socket", now))
        with pytest.raises(Conflict):
            await database.write(lambda tx: operators.add(tx, Operator(name="bob"), b"one", "socket", now))
        (known,) = await database.read(operators.all_of)
        assert (known.operator, known.fingerprint) == (eve, hashlib.sha256(b"one").hexdigest())
        await database.write(lambda tx: operators.remove(tx, "eve"))
        with pytest.raises(NotFound):
            await database.write(lambda tx: operators.remove(tx, "eve"))


async def test_the_report_says_what_is_true(tmp_path: Path) -> None:
    """In use, then gone; final only when everything is closed."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.held(task)
        await house.end(task)
        now = house.clock.now()
        before = await house.world.database.read(lambda tx: report(tx, task.id, now))
        assert ([line.fate for line in before.lines], before.is_final) == ([Fate.IN_USE], False)
        await house.reap()
        after = await house.world.database.read(lambda tx: report(tx, task.id, now))
        assert ([line.fate for line in after.lines], after.is_final) == ([Fate.GONE], True)
        json.dumps(after.to_json())


async def test_every_state_can_be_stored(tmp_path: Path) -> None:
    """The tables know no state the model does not, and the other way round."""
    async with living(tmp_path) as house:
        lease = (await house.obtain(await house.open())).lease
        for state in LeaseState:
            lease = await house.world.database.write(lambda tx, s=state, one=lease: leases.keep(tx, one, state=s))  # type: ignore[misc]
            assert (await house.lease(lease.id)).state is state
