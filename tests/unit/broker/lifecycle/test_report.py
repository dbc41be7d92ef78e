"""The report from the store: whose word counts as a confirmation of an end."""

from __future__ import annotations

from pathlib import Path

from broker.lifecycle.report import report
from broker.model.event import Epoch
from broker.model.report import Report
from broker.model.task import Task
from broker.store import confirmations, events
from fakes.world import House, living


async def made(house: House, task: Task) -> Report:
    """The report on a task, with two points expected."""
    return await house.world.database.read(lambda tx: report(tx, task.id, house.clock.now(), ("proxy", "mail")))


async def test_a_point_confirms_an_end_by_having_applied_it_or_something_later(tmp_path: Path) -> None:
    """Not what was before it, and nothing of another life of the store; of a task that lives there is no end at all."""
    async with living(tmp_path) as house:
        task = await house.open()
        await house.end(await house.open())
        alive = await made(house, task)
        assert (alive.epoch, alive.confirmed, alive.unconfirmed) == (None, (), ["mail", "proxy"])
        await house.end(task)
        ended = await house.world.database.read(lambda tx: events.end_of(tx, task.id))
        assert ended is not None
        assert (await made(house, task)).epoch == str(ended)
        for incarnation, n, counts in (
            (ended.incarnation, ended.n - 1, False),
            (ended.incarnation, ended.n, True),
            (ended.incarnation, ended.n + 1, True),
            ("another", ended.n + 2, False),
        ):
            said = Epoch(incarnation, n)
            await house.world.database.write(
                lambda tx, said=said: confirmations.confirm(tx, "proxy", said, house.clock.now())  # type: ignore[misc]
            )
            found = await made(house, task)
            assert [(one.point, one.epoch) for one in found.confirmed] == ([("proxy", str(said))] if counts else [])
            assert found.unconfirmed == (["mail"] if counts else ["mail", "proxy"])


async def test_it_is_about_a_task_and_all_below_it_and_says_what_it_can_t_read(tmp_path: Path) -> None:
    """Not about what is above or beside."""
    async with living(tmp_path) as house:
        top = await house.open()
        task = await house.open(top)
        below = await house.open(task)
        mine = {(await house.obtain(one)).lease.id for one in (task, below)}
        bad = (await house.obtain(below)).lease.id
        for other in (top, await house.open(top)):
            await house.obtain(other)
        await house.world.database.write(lambda tx: tx.execute("UPDATE leases SET set_aside = 1 WHERE id = $1", bad))
        found = await made(house, task)
        assert ({line.lease for line in found.lines}, found.unreadable) == (mine, 1)
        assert (await made(house, await house.open())).unreadable == 0
