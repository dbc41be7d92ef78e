"""Killing from the command line: what would end is shown first, and asked about before more than one task ends."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from broker.client.asking import asking
from broker.command import tables
from broker.command.doors import as_operator
from broker.command.ending import finish, see_gone
from broker.command.options import Where
from broker.model.ids import parse_task
from broker.wire.kills import AskKill, KillTold
from ca.runtime.terminal import Console, Exit, Style, Styled

if TYPE_CHECKING:
    from broker.client.broker import Broker

ROUND = 1000
"""Tasks one request ends, so that a terminal can say how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was typed."""

    task: str | None
    tree: bool
    agent: str | None
    path: str | None
    trust_domain: str | None
    instance: str | None
    dry_run: bool
    yes: bool
    words: str | None
    wait: bool

    @property
    def is_one(self) -> bool:
        """Whether it names one task and wants it ended."""
        return self.task is not None and not (self.tree or self.dry_run)

    def ask(self, *, dry_run: bool) -> AskKill:
        """The request. Raises Malformed: not exactly one thing is named."""
        named = {"tree" if self.tree else "task": self.task, "agent": self.agent, "path": self.path}
        named |= {"trust_domain": self.trust_domain, "instance": self.instance}
        return asking(AskKill, **named, words=self.words, dry_run=dry_run or None, most=None if dry_run else ROUND)


async def run(console: Console, where: Where, wish: Wish) -> int:
    """End what is named, or list it."""
    ask = wish.ask(dry_run=True)
    async with as_operator(where) as broker:
        if wish.is_one and wish.task is not None:
            await finish(console, broker, parse_task(wish.task), outcome="cancelled", words=wish.words, wait=wish.wait)
            return Exit.OK
        seen = await broker.kill(ask)
        if wish.dry_run:
            _show(console, seen)
            return Exit.OK
        if not _agreed(console, wish, seen):
            return Exit.FAILED
        told = await _all(console, broker, wish)
        if wish.wait:
            for one in seen.listed:
                await see_gone(console, broker, one.id)
    _tell(console, seen, told)
    return Exit.OK


async def _all(console: Console, broker: Broker, wish: Wish) -> int:
    """Round after round, until nothing that is named lives; answers how many tasks ended."""
    ended = 0
    while True:
        with console.progress(f"ending tasks, {ended} so far" if ended else "ending tasks"):
            told = await broker.kill(wish.ask(dry_run=False))
        ended += told.ended
        if not told.left or not told.ended:
            return ended


def _agreed(console: Console, wish: Wish, seen: KillTold) -> bool:
    if wish.yes or not seen.tasks:
        return True
    if console.json or not sys.stdin.isatty():
        raise click.UsageError(f"this would end {seen.tasks} tasks: look with --dry-run, then say --yes")
    _show(console, seen)
    return click.confirm("end them?", err=True)


def _tell(console: Console, seen: KillTold, ended: int) -> None:
    if console.json:
        console.result({**tables.plain(seen), "dry_run": False, "ended": ended, "left": 0})
        return
    console.say(Styled(f"{ended} tasks ended", Style.GOOD), "" if ended else "  none that is named was alive")


def _show(console: Console, seen: KillTold) -> None:
    if console.json:
        console.result(tables.plain(seen))
        return
    rows = [(one.id, str(one.owner), one.purpose, one.parent) for one in seen.listed]
    console.table(("task", "owner", "purpose", "part of"), rows, empty="no task that is named lives")
    if seen.tasks > len(rows):
        console.say(f"and {seen.tasks - len(rows)} more")
    secrets = ", ".join(f"{count} at {target}" for target, count in sorted(seen.leases.items())) or "none"
    console.say(Styled("  secrets     ", Style.DIM), secrets)
    console.say(Styled("  identities  ", Style.DIM), str(seen.identities))
