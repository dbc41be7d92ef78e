"""sojourn lease: what was given, and taking it back."""

from __future__ import annotations

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, command_options


@click.group()
def lease() -> None:
    """List and revoke what was given."""


@lease.command("list")
@click.option("--task", "task_id", metavar="ID", help="Only those of this task.")
@click.option("--open", "open_only", is_flag=True, help="Only those that are not over.")
@operator_options
@command_options
async def list_leases(console: Console, where: Where, task_id: str | None, *, open_only: bool) -> None:
    """List leases in the order of their birth.

    Example: sojourn lease list --open
    """
    from broker.command import tables
    from broker.command.doors import as_operator, every
    from broker.model.ids import parse_task

    task = None if task_id is None else parse_task(task_id)
    async with as_operator(where) as broker:
        found = await every(lambda after: broker.leases(task, open_only=open_only, after=after, limit=1000))
        now = broker.clock.now()
    tables.leases(console, found, now, empty="no lease is open" if open_only else "no lease was ever given")


@lease.command()
@click.argument("lease_id", metavar="ID")
@operator_options
@command_options
async def revoke(console: Console, where: Where, lease_id: str) -> None:
    """Take one secret back; its task goes on without it.

    Answers at once. `sojourn task show` says when nobody could use it any more.

    Example: sojourn lease revoke l0123456789abcdefghjkmnpqrs
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from broker.model.ids import parse_lease

    async with as_operator(where) as broker:
        told = await broker.revoke(parse_lease(lease_id))
    console.result(plain(told), f"{told.id} is {told.state}: sojourn task show {told.task} says when it is gone")
