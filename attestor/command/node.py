"""sojourn node: the machines that were admitted; send one away, ban one, and see what was refused."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from attestor.command.options import admin_options
from ca.runtime.terminal import Console, Style, Styled, command_options

_STYLES = {"admitted": Style.GOOD, "evicted": Style.DIM, "banned": Style.BAD}


@click.group()
def node() -> None:
    """List nodes, send them away, ban them; show what was refused."""


@node.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Also those that were evicted.")
@admin_options
@command_options
async def list_nodes(*, console: Console, everything: bool, socket: Path | None, state: Path | None) -> None:
    """List nodes: how each proved itself, when it was heard of, how many instances live there.

    Example: sojourn node list --all
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import NodeList

    async with asking_admin(socket or running(state).server_admin) as admin:
        found = NodeList.model_validate(await admin.get("/v1/nodes"))
    shown = [one for one in found.nodes if everything or one.state != "evicted"]
    if console.json:
        console.result({"nodes": [one.model_dump() for one in shown]})
        return
    console.table(
        ("node", "state", "method", "admitted", "heard of", "instances"),
        [
            (
                one.id,
                Styled(one.state, _STYLES.get(one.state, Style.DIM)),
                one.method,
                one.admitted_at,
                one.seen_at if one.observed or one.state != "admitted" else f"{one.seen_at} (silent)",
                str(one.live_instances),
            )
            for one in shown
        ],
        empty="there is no node",
    )


@node.command()
@click.argument("name")
@admin_options
@command_options
async def evict(*, console: Console, name: str, socket: Path | None, state: Path | None) -> None:
    """Send the node NAME away: its instances end at once. It may prove itself anew.

    Example: sojourn node evict web-1
    """
    await _order(console, socket, state, (name, "evict"))


@node.command()
@click.argument("name")
@admin_options
@command_options
async def ban(*, console: Console, name: str, socket: Path | None, state: Path | None) -> None:
    """Send the node NAME away for good: whatever it proves, it stays outside until `sojourn node unban`.

    Example: sojourn node ban web-1
    """
    await _order(console, socket, state, (name, "ban"))


@node.command()
@click.argument("name")
@admin_options
@command_options
async def unban(*, console: Console, name: str, socket: Path | None, state: Path | None) -> None:
    """Lift the ban of the node NAME: it may prove itself anew. Of a node that is not banned nothing changes.

    Example: sojourn node unban web-1
    """
    await _order(console, socket, state, (name, "unban"))


@node.command()
@admin_options
@command_options
async def risks(*, console: Console, socket: Path | None, state: Path | None) -> None:
    """Show what was refused and nobody honest does, the newest first: a token that came twice, or with a second key.

    Example: sojourn node risks
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import RiskList

    async with asking_admin(socket or running(state).server_admin) as admin:
        found = RiskList.model_validate(await admin.get("/v1/risks"))
    if console.json:
        console.result(found.model_dump())
        return
    console.table(
        ("when", "kind", "who", "what"),
        [(one.at, Styled(one.kind, Style.BAD), one.subject, one.detail) for one in found.risks],
        empty="nothing was refused that an operator must look at",
    )


async def _order(console: Console, socket: Path | None, state: Path | None, order: tuple[str, str]) -> None:
    """Give one, and tell what became of the node."""
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import NodeAnswer

    name, verb = order
    async with asking_admin(socket or running(state).server_admin) as admin:
        answer = await admin.post(f"/v1/nodes/{quote(name, safe='')}/{verb}")
    found = NodeAnswer.model_validate(answer)
    ended = f", {found.ended_instances} instances ended" if verb != "unban" else ""
    console.result(found.model_dump(), f"{found.id} is {found.state}{ended}")
