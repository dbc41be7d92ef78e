"""sojourn operator: who may give orders over the network, and which."""

from __future__ import annotations

from pathlib import Path

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, command_options

VERBS = (
    "tasks:read",
    "tasks:end",
    "tasks:kill",
    "leases:read",
    "leases:revoke",
    "leases:disown",
    "events:read",
    "audit:read",
    "epochs:confirm",
    "operators:manage",
    "targets:manage",
    "values:manage",
    "policy:read",
)
"""`broker.model.caller.Verb`, here so that `--help` loads nothing."""


@click.group()
def operator() -> None:
    """Bind a certificate to named verbs."""


@operator.command()
@click.argument("name")
@click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Its certificate (PEM); never an SVID, and its key stays where it is.",
)
@click.option(
    "--verb", "verbs", type=click.Choice(VERBS), multiple=True, required=True, help="What it may do; may be repeated."
)
@operator_options
@command_options
async def add(console: Console, where: Where, name: str, certificate: Path, verbs: tuple[str, ...]) -> None:
    """Let whoever holds the key of this certificate give these orders over the network.

    Example: sojourn operator add ada --certificate ada.pem --verb tasks:read --verb tasks:end
    """
    from broker.client.asking import asking
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from broker.model.caller import Verb
    from broker.wire.operators import AddOperator

    ask = asking(
        AddOperator, name=name, certificate=_read(certificate), verbs=[Verb(verb) for verb in dict.fromkeys(verbs)]
    )
    async with as_operator(where) as broker:
        told = await broker.add_operator(ask)
    console.result(plain(told), f"`{told.name}` may {', '.join(told.verbs)}")


@operator.command("list")
@operator_options
@command_options
async def list_operators(console: Console, where: Where) -> None:
    """Who may do what over the network; whoever may open the operators' socket may do everything.

    Example: sojourn operator list
    """
    from broker.command.doors import as_operator

    async with as_operator(where) as broker:
        found = (await broker.operators()).items
    console.table(
        ("name", "verbs", "fingerprint"),
        [(one.name, ", ".join(one.verbs), one.fingerprint) for one in found],
        empty="no operator over the network, only on the operators' socket",
    )


@operator.command()
@click.argument("name")
@operator_options
@command_options
async def remove(console: Console, where: Where, name: str) -> None:
    """Take an operator's verbs away, also from its open connections.

    Example: sojourn operator remove ada
    """
    from broker.command.doors import as_operator

    async with as_operator(where) as broker:
        await broker.remove_operator(name)
    console.result({"removed": name}, f"`{name}` may do nothing any more")


def _read(path: Path) -> str:
    pem = path.read_text(errors="replace")
    if "PRIVATE KEY" in pem:
        raise click.UsageError("the file holds a private key: give the certificate alone")
    return pem
