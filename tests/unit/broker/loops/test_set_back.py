"""The wall clock is set back by an hour: nothing that is being ended waits for that hour to come again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.lifecycle.kill import kill
from broker.loops.set_back import SetBack
from broker.model.kill import Kill, Reach
from broker.model.lease import LeaseState
from broker.model.task import EndReason, Task
from broker.store import outbox, tasks
from broker.store.outbox import Message
from fakes.clock import ManualClock
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living

pytestmark = pytest.mark.usefixtures("on_every_store")
HOUR = timedelta(hours=1)


async def open_doors(house: House) -> int:
    """How many principals may log in."""
    return sum(principal.enabled for principal in house.engine.target.principals.values())


async def put_off(house: House) -> None:
    """A task has ended, and its secret's end was tried once, in vain."""
    task = await house.open()
    await house.held(task)
    await end_in_vain(house, task)


async def end_in_vain(house: House, task: Task) -> None:
    """The target does not answer."""
    house.engine.fail("end_access", after=False)
    await house.end(task)
    await house.reap()
    assert await open_doors(house) == 1


@pytest.fixture
def clock() -> ManualClock:
    """One for all processes."""
    return ManualClock()


@pytest.fixture
def engine(clock: ManualClock) -> FakeEngine:
    """Of a target that outlives them."""
    return FakeEngine(FakeTarget(clock))


async def test_the_next_process_does_not_wait(tmp_path: Path, clock: ManualClock, engine: FakeEngine) -> None:
    """It believes the clock it finds, and sees by the newest receipt that it is earlier than it was."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await put_off(house)
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await house.reap()
        assert await open_doors(house) == 1
        await SetBack(house.world).tick(clock.now())
        await house.reap()
        assert await open_doors(house) == 0


async def test_nor_does_the_same_one(tmp_path: Path, clock: ManualClock, engine: FakeEngine) -> None:
    """After a stable minute it takes the wall clock's word, and says so once."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        look = SetBack(house.world)
        await look.tick(clock.now())
        task = await house.open()
        await house.held(task)
        clock.step_wall(-HOUR)
        await clock.advance(59)
        await end_in_vain(house, task)
        await look.tick(clock.now())
        before = clock.now()
        await clock.advance(2)
        assert clock.now() < before
        await look.tick(clock.now())
        await house.reap()
        assert await open_doors(house) == 0


async def test_what_an_ended_task_holds_is_called_in_all_the_same(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine
) -> None:
    """It ended, by the clock of then, an hour from now."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        task = await house.open()
        await house.held(task)
        await house.end(task)
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        await house.reap()
        assert await open_doors(house) == 0


async def test_silence_counts_from_now_on(tmp_path: Path, clock: ManualClock, engine: FakeEngine) -> None:
    """Whoever was heard an hour from now is silent half a minute from now; a deadline stays what was said."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        beating = await house.open(heartbeat=timedelta(seconds=10))
        lasting = await house.open()
        await house.held(beating)
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        await house.deadlines.tick(clock.now())
        await clock.advance(29)
        assert await house.deadlines.tick(clock.now()) == 0
        await clock.advance(2)
        assert await house.deadlines.tick(clock.now()) == 1
        assert (await house.task(beating.id)).end_reason is EndReason.SILENT
        assert (await house.task(lasting.id)).deadline == lasting.deadline


async def test_an_installation_that_only_beats_remembers_when(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine
) -> None:
    """A beat leaves no receipt: the newest of those is older than the step is long."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        task = await house.open(heartbeat=timedelta(seconds=10))
        await house.held(task)
        await clock.advance(7200)
        await house.world.database.write(lambda tx: tasks.beat(tx, task.id, clock.now()))
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        await clock.advance(31)
        assert await house.deadlines.tick(clock.now()) == 0  # its first look counts from now, as after each start
        await clock.advance(31)
        assert await house.deadlines.tick(clock.now()) == 1


async def test_a_broker_whose_clock_lags_behind_another_s_silences_nobody(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine
) -> None:
    """It may look at endings; whom the other one hears is not its affair."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        task = await house.open(heartbeat=timedelta(seconds=2))
        lease = (await house.obtain(task)).lease
        await SetBack(house.world, alone=False).tick(clock.now() - timedelta(seconds=7))
        assert (await house.task(task.id)).heard_at == task.heard_at
        assert await house.lease(lease.id) == lease
        await SetBack(house.world, alone=True).tick(clock.now() - timedelta(seconds=7))
        assert (await house.task(task.id)).heard_at == task.heard_at - timedelta(seconds=7)


async def test_what_nobody_received_is_taken_back_in_time(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine
) -> None:
    """The time to acknowledge counts from now on, not an hour longer."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await house.obtain(await house.open())
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        await clock.advance(29)
        await house.reap()
        assert await open_doors(house) == 1
        await clock.advance(2)
        await house.reap()
        assert await open_doors(house) == 0


async def test_what_is_just_being_made_is_left_to_whoever_makes_it(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine
) -> None:
    """A broker that lags behind starts while another one creates: that hand-over is not disturbed."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        task = await house.open()
        arrived, go = engine.hold("create")
        asked = house.world.group.create_task(house.obtain(task))
        await arrived.wait()
        await SetBack(house.world).tick(clock.now() - HOUR)
        await house.reap()
        go.set()
        assert (await asked).lease.state is LeaseState.ACTIVE


@pytest.mark.parametrize("reach", [Reach.TASK, Reach.AGENT])
async def test_a_kill_reaches_what_was_opened_an_hour_from_now(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine, reach: Reach
) -> None:
    """By a clock that was ahead, or by a broker whose clock still is."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        task = await house.open()
        await house.held(task)
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        what = Kill(reach=reach, name=str(task.id if reach is Reach.TASK else task.owner))
        killed = await kill(house.world, what, words=None, actor="an operator", now=clock.now())
        assert (killed.ended, killed.left) == ((task.id,), 0)


async def test_what_is_owed_is_told_at_once(tmp_path: Path, clock: ManualClock, engine: FakeEngine) -> None:
    """A party that did not answer is asked again."""
    message = Message(id="one", party="attestor", kind="ended", body={})
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await house.held(await house.open())
        await house.world.database.write(lambda tx: outbox.add(tx, message, clock.now()))
    clock.step_wall(-HOUR)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        due = await house.world.database.read(lambda tx: outbox.due(tx, "attestor", clock.now(), 10))
        assert [one.id for one in due] == ["one"]


@pytest.mark.parametrize("step", [timedelta(seconds=-4), timedelta(0), HOUR])
async def test_otherwise_nothing_is_touched(
    tmp_path: Path, clock: ManualClock, engine: FakeEngine, step: timedelta
) -> None:
    """Two clocks are never quite the same, and time that goes on is no fault; nor is a store that is new."""
    async with living(tmp_path, clock=clock, engine=engine) as house:
        await SetBack(house.world).tick(clock.now())
        await put_off(house)
        before = await house.leases()
    clock.step_wall(step)
    clock.restart()
    async with living(tmp_path, clock=clock, engine=engine) as house:
        look = SetBack(house.world)
        await look.tick(clock.now())
        await clock.advance(1)
        await look.tick(clock.now())
        assert await house.leases() == before
