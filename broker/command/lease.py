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
@click.option("--overdue", is_flag=True, help="Only those whose access should have ended and is not verified gone.")
@click.option("--quarantined", is_flag=True, help="Rows of the store that can't be read and were set aside instead.")
@operator_options
@command_options
async def list_leases(
    console: Console, where: Where, task_id: str | None, *, open_only: bool, overdue: bool, quarantined: bool
) -> None:
    """List leases in the order of their birth; overdue ones by target, the longest overdue first.

    Example: sojourn lease list --overdue
    """
    from broker.command import tables
    from broker.command.doors import as_operator, every
    from broker.model.ids import parse_task

    task = None if task_id is None else parse_task(task_id)
    async with as_operator(where) as broker:
        if quarantined:
            tables.quarantined(console, (await broker.quarantined()).items, broker.clock.now())
            return
        found = await every(
            lambda after: broker.leases(task, open_only=open_only, overdue=overdue, after=after, limit=1000)
        )
        now = broker.clock.now()
    none = "nothing is overdue" if overdue else "no lease is open" if open_only else "no lease was ever given"
    tables.leases(console, found, now, empty=none)


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


@lease.command()
@click.argument("lease_id", metavar="[ID]", required=False)
@click.option("--target", "target_name", metavar="NAME", help="Everything that is open at this target instead.")
@click.option("--confirm", is_flag=True, help="Confirm, as the second of two operators.")
@operator_options
@command_options
async def disown(
    console: Console, where: Where, lease_id: str | None, target_name: str | None, *, confirm: bool
) -> None:
    """Give up what can't be verified to have ended, because its target is gone for good.

    Two operators: one proposes, another confirms within the hour. The leases close as `disowned`, and every report says
    that their end is not verified.

    Example: sojourn lease disown --target old-db

    Example: sojourn lease disown --target old-db --confirm
    """
    from broker.client.asking import asking
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from broker.model.ids import parse_lease
    from broker.wire.disowning import Disown
    from ca.runtime.terminal import when

    if (lease_id is None) == (target_name is None):
        raise click.UsageError("say which lease, or which --target")
    ask = asking(Disown, confirm=confirm)
    async with as_operator(where) as broker:
        if target_name is not None:
            told = await broker.disown_target(target_name, ask)
        else:
            told = await broker.disown_lease(parse_lease(lease_id or ""), ask)
        now = broker.clock.now()
    if told.done:
        said = f"{told.leases} given up, not verified: {told.what}"
    else:
        until = when(told.until, now) if told.until is not None else "soon"
        said = f"proposed by {told.proposed_by}; another operator confirms with --confirm, {until} at the latest"
    console.result(plain(told), said)
