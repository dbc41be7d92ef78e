"""The closing report, made from the store whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from broker.model.ids import TaskId
from broker.model.report import Confirmation, Report
from broker.store import confirmations, events, leases, tasks
from ca.runtime.database import Transaction


async def report(tx: Transaction, task: TaskId, now: datetime, points: Iterable[str] = ()) -> Report:
    """What is known of everything `task` and those below it were given, and which points say they applied its end.

    `points` are the enforcement points that are expected to.

    Raises:
        NotFound: there is no such task.
    """
    found = await tasks.get(tx, task)
    ended = await events.end_of(tx, task)
    said = await confirmations.all_of(tx) if ended is not None else []
    confirmed = [
        Confirmation(point=one.point, epoch=str(one.epoch), at=one.said_at)
        for one in said
        if ended is not None and one.epoch.incarnation == ended.incarnation and one.epoch.n >= ended.n
    ]
    given = await leases.at_and_below(tx, task)
    epoch = None if ended is None else str(ended)
    unreadable = await leases.set_aside_of(tx, task)
    return Report.of(found, given, now, confirmed, expected=points, epoch=epoch, unreadable=unreadable)
