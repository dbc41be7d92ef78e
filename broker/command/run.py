"""sojourn run: a command inside a task of its own, with its secrets, for exactly as long as it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from attestor.command.options import Length
from broker.command.options import Where, agent_options
from ca.runtime.terminal import Console, Exit, command_options

if TYPE_CHECKING:
    from broker.client.broker import Broker
    from broker.client.child import Child
    from broker.client.living import LiveTask
    from broker.client.secret import HeldSecret
    from broker.command.gifts import Wanted
    from broker.wire.tasks import EndTask


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--role", "roles", multiple=True, metavar="ROLE", help="A secret it needs; a database's sets PGHOST & co."
)
@click.option("--env", "envs", multiple=True, metavar="NAME=ROLE:FIELD", help="Hand a value over in this variable.")
@click.option(
    "--file", "files", multiple=True, metavar="NAME=ROLE[:FIELD]", help="… in a private file this variable names."
)
@click.option(
    "--fd", "descriptors", multiple=True, metavar="NAME=ROLE[:FIELD]", help="… by a descriptor this variable names."
)
@click.option(
    "--notify",
    type=click.Choice(["HUP", "USR1", "USR2"]),
    help="Send the command this signal when another secret took a secret's place in its files.",
)
@click.option("--purpose", help="One line a human understands (default: the command's name).")
@click.option("--lasts", type=Length(), help="End it after this: 90s, 10m, 1h.")
@click.option("--user", type=click.IntRange(1, 2**31 - 1), metavar="UID", help="Run it as this user (needs root).")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@agent_options
@command_options
async def run(
    console: Console,
    where: Where,
    *,
    roles: tuple[str, ...],
    envs: tuple[str, ...],
    files: tuple[str, ...],
    descriptors: tuple[str, ...],
    notify: str | None,
    purpose: str | None,
    lasts: timedelta | None,
    user: int | None,
    command: tuple[str, ...],
) -> int:
    """Run a command inside a task of its own; its exit code is passed on.

    When the command ends, or the task is ended from outside, everything it was given is taken back, and everything it
    started is ended. Without a field a file or descriptor holds the whole secret as JSON. Before a secret runs out
    another one takes its place: files are rewritten, variables and descriptors can't be. Nothing of ours is in the
    command's environment.

    Example: sojourn run --role orders-db/readonly -- psql -c "SELECT count(*) FROM orders"

    Example: sojourn run --env PW=orders-db/readonly:password --lasts 10m -- ./report.sh
    """
    from broker.command.doors import as_agent
    from ca.runtime.process import harden

    _check_user(user)
    harden()
    plan = _plan(roles, envs, files, descriptors, None if notify is None else signal.Signals[f"SIG{notify}"])
    async with as_agent(console, where) as broker:
        words = purpose or f"run {PurePath(command[0]).name}"
        return await _within_a_task(console, broker, plan, command, purpose=words, lasts=lasts, user=user)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Which secrets, and how each reaches the command; `bare` are those nothing was said of."""

    roles: tuple[str, ...]
    bare: tuple[str, ...]
    wanted: tuple[Wanted, ...]
    notify: signal.Signals | None


def _plan(
    roles: tuple[str, ...],
    envs: tuple[str, ...],
    files: tuple[str, ...],
    descriptors: tuple[str, ...],
    notify: signal.Signals | None,
) -> _Plan:
    from broker.client.child import Delivery
    from broker.command.gifts import Wanted
    from ca.errors import Malformed

    said = ((envs, Delivery.VARIABLE), (files, Delivery.FILE), (descriptors, Delivery.DESCRIPTOR))
    try:
        wanted = tuple(Wanted.parse(text, delivery) for texts, delivery in said for text in texts)
    except Malformed as error:
        raise click.UsageError(str(error)) from None
    named = {one.role for one in wanted}
    every = tuple(dict.fromkeys((*roles, *(one.role for one in wanted))))
    bare = tuple(role for role in dict.fromkeys(roles) if role not in named)
    return _Plan(roles=every, bare=bare, wanted=wanted, notify=notify)


async def _within_a_task(
    console: Console,
    broker: Broker,
    plan: _Plan,
    command: Sequence[str],
    *,
    purpose: str,
    lasts: timedelta | None,
    user: int | None,
) -> int:
    from broker.client.ending import ending
    from broker.client.living import TaskEnded
    from broker.client.task import task
    from broker.command import gifts
    from broker.model.task import EndReason

    if plan.roles:
        gifts.check(plan.bare, plan.wanted, {role.name: role.engine for role in (await broker.roles()).items})
    opened: list[LiveTask] = []
    try:
        async with task(purpose=purpose, roles=plan.roles, lasts=lasts, broker=broker) as work:
            opened.append(work)
            code = await _child(console, work, plan, command, user)
            await work.end(_outcome(code))
            if work.told.end_reason is not EndReason.SAID_SO:
                console.error(ending(work.told))
    except TaskEnded as ended:
        console.error(f"{ended}; the command was ended")
        code = Exit.FAILED
    await _gone(console, broker, opened[0].id)
    return code


async def _child(console: Console, work: LiveTask, plan: _Plan, command: Sequence[str], user: int | None) -> int:
    """Start the command and see it and everything it started to its end."""
    from attestor.client.beside import beside
    from broker.client.child import start
    from broker.command import gifts

    held: dict[str, HeldSecret] = {}
    for role in plan.roles:
        with console.progress(f"asking for {role}"):
            held[role] = await work.secret(role)
    child = start(command, gifts.gifts(plan.bare, plan.wanted, held), user=user)
    try:
        async with beside(_follow(child, plan, held)):
            return await child.wait()
    finally:
        _take_signals()
        await child.end()


async def _follow(child: Child, plan: _Plan, held: Mapping[str, HeldSecret]) -> None:
    """Rewrite the command's files whenever another secret took one's place, and tell it so."""
    from broker.command import gifts

    async def follow(one: HeldSecret) -> None:
        seen = one.generation
        while one.over is None:
            if (now := await one.changed(seen)) == seen:
                continue
            seen = now
            child.rewrite(gifts.gifts(plan.bare, plan.wanted, held))
            if plan.notify is not None and not child.ended.is_set():
                child.process.send_signal(plan.notify)

    async with asyncio.TaskGroup() as group:
        for one in held.values():
            group.create_task(follow(one))


def _take_signals() -> None:
    """The command is over: from now on a signal means this process, which may be waiting for a target that is down."""
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    assert own is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, own.cancel)


async def _gone(console: Console, broker: Broker, task: str) -> None:
    """See that nobody can use anything it was given; what can't be seen is told, and is no failure of the command."""
    from broker.command.ending import see_gone
    from ca.errors import Problem

    try:
        await see_gone(console, broker, task)
    except Problem as problem:
        console.error(f"that its access is gone could not be seen: {problem}")


def _outcome(code: int) -> EndTask:
    from broker.wire.tasks import EndTask

    return EndTask() if code == 0 else EndTask(outcome="failed", words=f"the command ended with {code}")


def _check_user(user: int | None) -> None:
    if user is not None and user != os.geteuid() and os.geteuid() != 0:
        raise click.UsageError("only root may run a command as another user")
