"""sojourn task: open, show and end tasks.

A task opened here outlives the command, so it is bound to no process: it has a deadline and a key (`task_keys.py`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import Length
from broker.command.options import LEVELS, Where, agent_options, operator_options
from ca.runtime.terminal import Console, command_options

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

    from broker.wire.tasks import TaskOpened


@click.group()
def task() -> None:
    """Open, show and end tasks."""


@task.command("open")
@click.option("--purpose", required=True, help="One line a human understands; it stands in the report.")
@click.option("--lasts", type=Length(), required=True, help="When it ends by itself, from now: 90s, 10m, 1h30m.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role it may ask for, or a prefix: orders-db/*.")
@click.option("--tool", "tools", multiple=True, metavar="NAME", help="A tool it may use, or a prefix.")
@click.option("--destination", "destinations", multiple=True, metavar="NAME", help="Where it may reach, or a prefix.")
@click.option("--sensitivity", type=LEVELS, help="Its ceiling (default: that of the roles).")
@click.option("--heartbeat", type=Length(), help="How often it promises `heartbeat` calls; three missed end it.")
@click.option("--parent", metavar="ID", help="The task it is a part of.")
@agent_options
@command_options
async def open_task(
    console: Console,
    where: Where,
    *,
    purpose: str,
    lasts: timedelta,
    roles: tuple[str, ...],
    tools: tuple[str, ...],
    destinations: tuple[str, ...],
    sensitivity: str | None,
    heartbeat: timedelta | None,
    parent: str | None,
) -> None:
    """Open a task that outlives this command; its key is kept in a private file for the next one.

    Example: sojourn task open --purpose "fix the invoices" --lasts 30m --role orders-db/readonly
    """
    from broker.client.address import places_of
    from broker.command.task_keys import KeyFile
    from broker.wire.proof import new_key

    key, places = new_key(), places_of(where.state)
    kept = KeyFile(places, key)
    scope = {"roles": list(roles), "tools": list(tools), "destinations": list(destinations)}
    wish = {"purpose": purpose, "lasts": lasts, "heartbeat": heartbeat, "parent": parent}
    try:
        told = await _open(console, where, wish, scope, sensitivity=sensitivity, key=key)
        path = kept.keep(told.task.id)
    except BaseException:
        kept.drop()
        raise
    until = told.task.deadline
    human = f"{told.task.id}" if until is None else f"{told.task.id}  ends by itself at {until:%H:%M:%S} UTC"
    console.result({"task": told.task.id, "deadline": until, "key_file": str(path), "reason": told.reason}, human)


async def _open(
    console: Console, where: Where, wish: dict[str, Any], scope: dict[str, Any], *, sensitivity: str | None, key: ECKey
) -> TaskOpened:
    from broker.client.asking import asking
    from broker.client.task import ceiling_of
    from broker.command.doors import as_agent
    from broker.model.scope import Sensitivity
    from broker.wire.tasks import OpenTask, PublicKey, ScopeBody

    jwk = key.as_dict(private=False)
    public = asking(PublicKey, **{name: jwk[name] for name in ("kty", "crv", "x", "y")})
    async with as_agent(console, where) as broker:
        if sensitivity is None:
            ceiling = await ceiling_of(broker, scope["roles"])
        else:
            ceiling = Sensitivity.parse(sensitivity)
        reach = asking(ScopeBody, **scope, sensitivity=ceiling)
        return await broker.open_task(asking(OpenTask, **wish, scope=reach, bind=False, key=public))


@task.command()
@click.argument("task_id", metavar="ID")
@agent_options
@command_options
async def show(console: Console, where: Where, task_id: str) -> None:
    """Show a task and its report: what was issued, and when each was seen to be gone.

    Example: sojourn task show t0123456789abcdefghjkmnpqrs
    """
    from broker.command import tables
    from broker.command.doors import reading
    from broker.model.ids import parse_task

    name = parse_task(task_id)
    async with reading(console, where, name) as broker:
        found, report, now = await broker.task(name), await broker.report(name), broker.clock.now()
    if console.json:
        console.result({"task": tables.plain(found), "report": tables.plain(report)})
        return
    tables.task(console, found, now)
    tables.report(console, report, now)


@task.command()
@click.argument("task_id", metavar="ID")
@agent_options
@command_options
async def tree(console: Console, where: Where, task_id: str) -> None:
    """Show a task and everything below it.

    Example: sojourn task tree t0123456789abcdefghjkmnpqrs
    """
    from broker.command import tables
    from broker.command.doors import reading
    from broker.model.ids import parse_task

    name = parse_task(task_id)
    async with reading(console, where, name) as broker:
        found = (await broker.tree(name)).tasks
    if console.json:
        console.result(tables.plain(found))
        return
    depths: dict[str, int] = {}
    for one in found:
        depths[one.id] = depths.get(one.parent or "", -1) + 1
        console.say(f"{'   ' * depths[one.id]}{'└─ ' if depths[one.id] else ''}{one.id}  {one.state}  {one.purpose}")


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("--failed", "outcome", flag_value="failed", help="The work failed.")
@click.option("--cancelled", "outcome", flag_value="cancelled", help="The work was given up.")
@click.option("--words", help="One line for the report.")
@click.option("--wait", is_flag=True, help="Return when its access is verified to be gone.")
@agent_options
@command_options
async def end(
    console: Console, where: Where, task_id: str, outcome: str | None, words: str | None, *, wait: bool
) -> None:
    """End a task opened here, and everything below it.

    Example: sojourn task end t0123456789abcdefghjkmnpqrs --wait
    """
    from broker.client.address import places_of
    from broker.command.doors import with_key
    from broker.command.ending import finish
    from broker.command.task_keys import forget
    from broker.model.ids import parse_task

    name = parse_task(task_id)
    async with with_key(console, where, name) as broker:
        await finish(console, broker, name, outcome=outcome or "done", words=words, wait=wait)
    if wait:
        forget(places_of(where.state), name)


@task.command()
@click.argument("task_id", metavar="[ID]", required=False)
@click.option("--tree", is_flag=True, help="The whole tree the task belongs to, from its root.")
@click.option("--agent", metavar="SPIFFE-ID", help="Every task of one agent.")
@click.option("--path", metavar="SPIFFE-ID", help="Every task of this identity and of all below it.")
@click.option("--trust-domain", metavar="NAME", help="Every task of a trust domain.")
@click.option("--instance", metavar="ID", help="Every task bound to one process.")
@click.option("--dry-run", is_flag=True, help="Only list what would end.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--words", help="One line for the report and for the agent.")
@click.option("--wait", is_flag=True, help="Return when its access is verified to be gone.")
@operator_options
@command_options
async def kill(console: Console, where: Where, task_id: str | None, **said: Any) -> int:
    """End any task, and everything below it, as an operator; or all of an agent, a path, a trust domain, a process.

    Example: sojourn task kill t0123456789abcdefghjkmnpqrs --words "it deletes invoices"

    Example: sojourn task kill --path spiffe://example.org/agents --dry-run
    """
    from broker.command.killing import Wish, run

    return await run(console, where, Wish(task=task_id, **said))


@task.command("list")
@click.option("--all", "ended_too", is_flag=True, help="Also those that have ended.")
@operator_options
@command_options
async def list_tasks(console: Console, where: Where, *, ended_too: bool) -> None:
    """List tasks in the order of their birth, as an operator.

    Example: sojourn task list --all
    """
    from broker.command import tables
    from broker.command.doors import as_operator, every

    async with as_operator(where) as broker:
        found = await every(lambda after: broker.tasks(after, live=not ended_too, limit=1000))
        now = broker.clock.now()
    tables.tasks(console, found, now, empty="no task was ever opened" if ended_too else "no task lives")
