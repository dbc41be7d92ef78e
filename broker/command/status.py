"""sojourn status: one screen of what runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, Style, Styled, command_options

if TYPE_CHECKING:
    from broker.client.address import Running
    from broker.client.broker import Broker
    from broker.wire.audit import HeadTold
    from broker.wire.leases import LeaseTold
    from broker.wire.roles import TargetTold
    from broker.wire.tasks import TaskTold


@click.command()
@operator_options
@command_options
async def status(console: Console, where: Where) -> None:
    """What runs, which tasks and leases live, what is overdue.

    Example: sojourn status --json
    """
    from broker.command.doors import as_operator
    from ca.runtime.clock import SystemClock

    async with as_operator(where) as broker:
        found = await _look(broker)
    now = SystemClock().now()
    running = _running(where)
    node_agent = await _node_agent(running)
    if console.json:
        console.result({**_plain(running, found), "node_agent": node_agent})
        return
    _head(console, running, now)
    _processes(console, node_agent, now)
    _show(console, found, now)


class _Found:
    """What a broker says of itself."""

    targets: list[TargetTold]
    tasks: list[TaskTold]
    leases: list[LeaseTold]
    overdue: list[LeaseTold]
    heads: list[HeadTold]


async def _look(broker: Broker) -> _Found:
    from broker.command.doors import every

    found = _Found()
    found.targets = (await broker.targets()).items
    found.tasks = await every(lambda after: broker.tasks(after, live=True, limit=1000))
    found.leases = await every(lambda after: broker.leases(after=after, open_only=True, limit=1000))
    found.overdue = await every(lambda after: broker.leases(after=after, overdue=True, limit=1000))
    found.heads = (await broker.heads()).items
    return found


def _running(where: Where) -> Running | None:
    """The running `up`; None when the broker was started alone, or named by its socket."""
    from broker.client.address import places_of, running
    from ca.errors import Problem

    try:
        return running(places_of(where.state)) if where.admin is None else None
    except Problem:
        return None


async def _node_agent(running: Running | None) -> dict[str, Any] | None:
    """How the node agent of the running `up` stands; None when there is none, or it does not answer."""
    from attestor.client.admin import AdminClient
    from ca.errors import Problem

    if running is None:
        return None
    try:
        async with AdminClient(running.node_agent_admin) as admin:
            return dict(await admin.get("/v1/health"))
    except Problem:
        return None


def _processes(console: Console, node_agent: dict[str, Any] | None, now: datetime) -> None:
    """What is held for processes, and until when they go on if the attestor server is away."""
    from ca.runtime.terminal import when

    if node_agent is None:
        return
    text = f"{node_agent['processes']} held"
    if node_agent["first_expires_at"]:
        first, last = (datetime.fromisoformat(node_agent[f"{one}_expires_at"]) for one in ("first", "last"))
        text += f"; without the attestor server the first runs out {when(first, now)}, the last {when(last, now)}"
    console.say(Styled(f"  {'processes':<14}", Style.DIM), text)
    if not node_agent["ready"]:
        console.say(Styled(f"  {'waiting for':<14}", Style.WARN), node_agent["waiting_for"])


def _head(console: Console, running: Running | None, now: datetime) -> None:
    from broker.client.broker import BROKER_PATH
    from ca.runtime.terminal import when

    if running is None:
        console.say(Styled("a broker answers", Style.GOOD))
        return
    since = when(running.started_at, now)
    console.say(Styled("sojourn is up", Style.GOOD), f"  pid {running.pid}, started {since}")
    rows = {
        "trust domain": running.trust_domain,
        "broker": running.broker,
        "identity": f"spiffe://{running.trust_domain}{BROKER_PATH}",
        "Workload API": running.workload_api,
        "state": str(running.state),
    }
    for name, value in rows.items():
        console.say(Styled(f"  {name:<14}", Style.DIM), value)


def _show(console: Console, found: _Found, now: datetime) -> None:
    from broker.command import tables
    from ca.runtime.terminal import when

    states = {"up": Style.GOOD, "down": Style.BAD, "unknown": Style.WARN}
    console.table(
        ("target", "engine", "state", "roles"),
        [(one.name, one.engine, Styled(one.state, states[one.state]), ", ".join(one.roles)) for one in found.targets],
        empty="no target yet: sojourn target add",
    )
    tables.tasks(console, found.tasks, now)
    tables.leases(console, found.leases, now)
    if found.overdue:
        oldest = min(one.end_due_at for one in found.overdue if one.end_due_at is not None)
        where = ", ".join(sorted({one.target for one in found.overdue}))
        text = f"  at {where}, the oldest should have ended {when(oldest, now)}: sojourn lease list --overdue"
        console.say(Styled(f"overdue: {len(found.overdue)}", Style.BAD), text)
    else:
        console.say(Styled("nothing is overdue", Style.GOOD))
    for head in found.heads[-1:]:
        console.say(Styled("audit  ", Style.DIM), f"{head.writer}:{head.number}  {head.hash}")


def _plain(running: Running | None, found: _Found) -> dict[str, Any]:
    from broker.client.broker import BROKER_PATH
    from broker.command.tables import plain

    up = None
    if running is not None:
        up = {
            "pid": running.pid,
            "started_at": running.started_at,
            "trust_domain": running.trust_domain,
            "broker": running.broker,
            "identity": f"spiffe://{running.trust_domain}{BROKER_PATH}",
            "workload_api": running.workload_api,
            "state": str(running.state),
        }
    return {
        "up": up,
        "targets": plain(found.targets),
        "tasks": plain(found.tasks),
        "leases": plain(found.leases),
        "overdue": [one.id for one in found.overdue],
        "audit": plain(found.heads),
    }
