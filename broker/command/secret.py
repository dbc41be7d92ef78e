"""sojourn secret: what may be asked for, and asking for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta

import click

from attestor.command.options import Length
from broker.command import values
from broker.command.options import Where, agent_options
from ca.runtime.terminal import Console, command_options, duration


@click.group()
def secret() -> None:
    """List what may be asked for, and ask for it; put values that rest here."""


for _one in (values.put, values.versions, values.destroy):
    secret.add_command(_one)


@secret.command("list")
@agent_options
@command_options
async def list_secrets(console: Console, where: Where) -> None:
    """List the roles there are, with what taking each back means. Whether a task may have one is decided when it asks.

    Example: sojourn secret list
    """
    from broker.command.doors import as_either
    from broker.command.tables import guarantee, plain

    async with as_either(console, where) as broker:
        found = (await broker.roles()).items
    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("role", "engine", "sensitivity", "longest", "when taken back", "if we are down", "what it is for"),
        [
            (
                one.name,
                one.engine,
                str(one.sensitivity),
                duration(one.longest),
                guarantee(one.guarantee),
                _down(one.guarantee.if_we_are_down.then, one.guarantee.if_we_are_down.within),
                one.description or None,
            )
            for one in found
        ],
        empty="no role yet: sojourn target add",
    )


def _down(then: str, within: int | str) -> str:
    if isinstance(within, int):
        return f"{then.replace('-', ' ')} within {duration(timedelta(seconds=within))}"
    return then.replace("-", " ")


@secret.command()
@click.argument("role")
@click.option("--task", "task_id", metavar="ID", required=True, help="The task, as `sojourn task open` named it.")
@click.option("--field", metavar="NAME", help="Print this value alone: password, url, host, …")
@click.option("--lasts", type=Length(), help="Shorter than the role allows.")
@click.option("--show", is_flag=True, help="Print to a terminal all the same.")
@agent_options
@command_options
async def get(
    console: Console, where: Where, *, role: str, task_id: str, field: str | None, lasts: timedelta | None, show: bool
) -> None:
    """Ask for a secret for a task opened with `sojourn task open`, print it once, and acknowledge it.

    A terminal remembers what it showed, so it is refused without --show. `sojourn run` hands a secret to a command
    without printing it.

    Example: sojourn secret get orders-db/readonly --task t0123456789abcdefghjkmnpqrs --field password | ./rotate.sh
    """
    from broker.client.living import LiveTask
    from broker.command.doors import with_key
    from broker.model.ids import parse_task
    from ca.errors import Malformed

    if sys.stdout.isatty() and not show:
        raise click.UsageError("a terminal remembers what it shows: redirect the output, or say --show")
    name = parse_task(task_id)
    async with with_key(console, where, name) as broker:
        with console.progress(f"asking for {role}"):
            held = await LiveTask(broker, await broker.task(name)).secret(role, ttl=lasts)
        try:
            values = held.revealed() if field is None else {field: held.value(field).reveal()}
        except Malformed:
            await broker.revoke(held.lease)  # nobody will ever use it
            raise
    _hand_over(values, bare=field is not None, json=console.json)


def _hand_over(values: Mapping[str, str | int], *, bare: bool, json: bool) -> None:
    """Write what was asked for to stdout, exactly; the console would escape what it does not know."""
    import json as json_format

    if json:
        text = json_format.dumps(dict(values), ensure_ascii=False) + "\n"
    elif bare:
        text = "".join(f"{value}\n" for value in values.values())
    else:
        text = "".join(f"{name}={value}\n" for name, value in values.items())
    sys.stdout.write(text)
    sys.stdout.flush()
