"""sojourn svid revoke: an operator takes back what was given, before its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import admin_options
from ca.runtime.terminal import Console, Style, Styled, command_options

if TYPE_CHECKING:
    from attestor.wire.admin import RevocationAnswer


@click.command()
@click.option("--serial", metavar="HEX", help="One leaf by its number; --issuer says whose number it is.")
@click.option("--issuer", metavar="HEX", help="The key id of the authority that signed it.")
@click.option("--instance", metavar="ID", help="An instance and all its leaves; it ends for good.")
@click.option("--node", metavar="NAME", help="A node with all its instances; it is evicted.")
@click.option("--under", metavar="PATH", help="Whoever is called so or below, by whole segments, as in /team/billing.")
@click.option("--dry-run", is_flag=True, help="Only say what it would hit.")
@admin_options
@command_options
async def revoke(
    *,
    console: Console,
    serial: str | None,
    issuer: str | None,
    instance: str | None,
    node: str | None,
    under: str | None,
    dry_run: bool,
    socket: Path | None,
    state: Path | None,
) -> None:
    """Take back one leaf, an instance, a node, or everything below a path. An instance that is hit ends for good.

    One leaf alone is replaced: its process goes on with another. Verifiers of ours refuse what was revoked on new
    connections and on open ones; others as far as they read revocation lists.

    Example: sojourn svid revoke --under /team/billing --dry-run
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import RevocationAnswer

    wish = _wish(serial, issuer, {"instance": instance, "node": node, "under": under})
    async with asking_admin(socket or running(state).server_admin) as admin:
        answer = await admin.post("/v1/revocations", {**wish, "dry_run": dry_run})
    _tell(console, RevocationAnswer.model_validate(answer))


def _wish(serial: str | None, issuer: str | None, others: dict[str, str | None]) -> dict[str, Any]:
    """Exactly one of them. Raises UsageError."""
    wishes: dict[str, Any] = {name: said for name, said in others.items() if said is not None}
    if serial is not None or issuer is not None:
        if serial is None or issuer is None:
            raise click.UsageError(
                "a leaf is named by --serial and --issuer together: `sojourn svid fetch --json` shows both"
            )
        wishes["leaf"] = {"serial": serial.lower(), "issuer_key_id": issuer.lower()}
    if len(wishes) != 1:
        raise click.UsageError("expected exactly one of --serial with --issuer, --instance, --node and --under")
    return wishes


def _tell(console: Console, answer: RevocationAnswer) -> None:
    if console.json:
        console.result(answer.model_dump())
        return
    would = "would be " if answer.dry_run else ""
    if answer.node is not None:
        console.say(Styled("node  ", Style.WARN), f"{answer.node} {would}evicted")
    for one in answer.instances:
        console.say(Styled("instance  ", Style.WARN), f"{one} {'would end' if answer.dry_run else 'ended'}")
    console.table(
        ("SPIFFE ID", "instance", "expires", "serial", "issuer"),
        [(one.spiffe_id, one.instance or "-", one.not_after, one.serial, one.issuer_key_id) for one in answer.leaves],
        empty=f"no leaf {would}revoked: none is valid that was not revoked before",
    )
    more = answer.leaf_count - len(answer.leaves) + answer.instance_count - len(answer.instances)
    console.say(
        f"{answer.leaf_count} leaves and {answer.instance_count} instances", f", {more} not shown" if more else ""
    )
