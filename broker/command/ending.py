"""Ending a task from the command line, and seeing that its access is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from broker.client.asking import asking
from broker.client.ending import until_gone
from broker.command import tables
from broker.model.report import Fate
from broker.wire.tasks import EndTask
from ca.runtime.terminal import Console, duration, printable, when

if TYPE_CHECKING:
    from broker.client.broker import Broker
    from broker.wire.reports import ReportTold
    from broker.wire.tasks import TaskTold

NOTABLE = timedelta(seconds=1)
"""An ending that takes longer than this is told."""

_POINTS = 5.0
"""Seconds `--wait` waits for enforcement points that have not confirmed."""

_KNOWN = "stays known until it is replaced where it is used"


async def finish(
    console: Console, broker: Broker, task: str, *, outcome: str, words: str | None, wait: bool
) -> TaskTold:
    """End `task` and tell how it stands; with `wait` also what became of everything it was given."""
    told = await broker.end(task, asking(EndTask, outcome=outcome, words=words))
    report = await see_gone(console, broker, task) if wait else None
    if console.json:
        console.result({"task": tables.plain(told), "report": None if report is None else tables.plain(report)})
        return told
    console.say(f"{told.id} is {told.state}")
    if report is not None:
        console.say(report.summary)
        tables.report(console, report, broker.clock.now())
    return told


async def see_gone(console: Console, broker: Broker, task: str) -> ReportTold:
    """Wait until nobody can use anything `task` was given, and say on stderr when that took long or can't be.

    Raises Unreachable: the broker went away; it goes on with the ending when it is back.
    """
    begun = broker.clock.boot()
    with console.progress("waiting until its access is verified to be gone"):
        report = await until_gone(broker, task)
        report = await _heard_from_points(broker, report)
    took = timedelta(seconds=broker.clock.boot() - begun)
    if not console.json:
        if took > NOTABLE:
            click.echo(f"its access was verified to be gone after {duration(took)}", err=True)
        for line in report.leases:
            if line.fate is Fate.LIVES_ON:
                until = f"ends by itself {when(line.lives_until, broker.clock.now())}" if line.lives_until else _KNOWN
                click.echo(f"{printable(line.role)} can't be taken back and {until}", err=True)
    return report


async def _heard_from_points(broker: Broker, report: ReportTold) -> ReportTold:
    """Give the enforcement points that are registered a moment to say that they applied the end."""
    until, pause = broker.clock.boot() + _POINTS, 0.02
    while report.unconfirmed and broker.clock.boot() < until:
        await broker.clock.sleep(pause)
        pause = min(0.5, pause * 2)
        report = await broker.report(report.task)
    return report
