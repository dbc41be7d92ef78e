"""sojourn ca: the keys that sign identities; show them, replace one, take one back, forget a server's."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from attestor.command.options import admin_options
from ca.runtime.terminal import Console, Style, Styled, command_options

_DRY = click.option("--dry-run", is_flag=True, help="Only say what it would do.")
_STYLES = {"active": Style.GOOD, "prepared": Style.GOOD, "tainted": Style.BAD, "revoked": Style.BAD}


@click.group()
def ca() -> None:
    """Show, rotate, taint and revoke the keys that sign identities."""


@ca.command()
@click.option("--all", "everything", is_flag=True, help="Also those that are retired or revoked.")
@admin_options
@command_options
async def show(*, console: Console, everything: bool, socket: Path | None, state: Path | None) -> None:
    """Show the authorities of every server: which signs, which is next, and what peers still believe.

    Example: sojourn ca show
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import AuthorityList

    async with asking_admin(socket or running(state).server_admin) as admin:
        found = AuthorityList.model_validate(await admin.get("/v1/authorities"))
    shown = [one for one in found.authorities if everything or one.state not in {"retired", "revoked"}]
    if console.json:
        console.result(found.model_copy(update={"authorities": shown}).model_dump())
        return
    console.table(
        ("kind", "state", "server", "in the bundle since", "ends", "signed until", "key id"),
        [
            (
                one.kind,
                Styled(one.state, _STYLES.get(one.state, Style.DIM)),
                one.server if one.server != found.server else f"{one.server} (this)",
                one.published_at if one.in_bundle else "-",
                one.not_after,
                one.signed_until,
                one.key_id,
            )
            for one in shown
        ],
        empty="there is no authority",
    )
    for anchor in found.anchors:
        console.say("root kept elsewhere  ", f"{anchor.key_id}  {anchor.subject}, until {anchor.not_after}")
    for warning in found.warnings:
        console.say(Styled("warning  ", Style.WARN), warning)


@ca.command()
@click.argument("kind", type=click.Choice(["root", "issuing", "jwt", "wit"]))
@click.option("--at-once", is_flag=True, help="Don't wait until peers were told of the new key.")
@_DRY
@admin_options
@command_options
async def rotate(
    *, console: Console, kind: str, at_once: bool, dry_run: bool, socket: Path | None, state: Path | None
) -> None:
    """Put a new key in the place of the one of this KIND; what the old one signed stays valid.

    A new root brings a new issuing authority. Peers are told of the new key first; with --at-once some may meet it
    before they know it.

    Example: sojourn ca rotate root --dry-run
    """
    from attestor.wire.admin import RotateRequest

    wish = RotateRequest.model_validate({"kind": kind, "at_once": at_once, "dry_run": dry_run})
    await _order(console, socket, state, ("/v1/authorities/rotate", wish.model_dump()))


@ca.command()
@click.argument("key_id")
@_DRY
@admin_options
@command_options
async def taint(*, console: Console, key_id: str, dry_run: bool, socket: Path | None, state: Path | None) -> None:
    """Declare the key KEY_ID compromised: everything it signed is replaced now, while peers still believe it.

    A root takes the issuing authorities under it along. The key that signs at the moment is rotated first.

    Example: sojourn ca taint 3f1c… --dry-run
    """
    await _order(console, socket, state, (f"/v1/authorities/{quote(key_id, safe='')}/taint", {"dry_run": dry_run}))


@ca.command()
@click.argument("key_id")
@_DRY
@admin_options
@command_options
async def revoke(*, console: Console, key_id: str, dry_run: bool, socket: Path | None, state: Path | None) -> None:
    """Believe the tainted key KEY_ID no longer: it leaves the bundle, and what it signed is refused everywhere.

    Example: sojourn ca revoke 3f1c… --dry-run
    """
    await _order(console, socket, state, (f"/v1/authorities/{quote(key_id, safe='')}/revoke", {"dry_run": dry_run}))


@ca.command()
@click.argument("server")
@_DRY
@admin_options
@command_options
async def forget(*, console: Console, server: str, dry_run: bool, socket: Path | None, state: Path | None) -> None:
    """Say that SERVER, one of several over a store, is gone for good.

    What it signed stays believed until it has expired; then its keys leave the bundle. Asked at another server.

    Example: sojourn ca forget attestor-2 --dry-run
    """
    await _order(console, socket, state, (f"/v1/servers/{quote(server, safe='')}/forget", {"dry_run": dry_run}))


async def _order(console: Console, socket: Path | None, state: Path | None, order: tuple[str, dict[str, Any]]) -> None:
    """Give one, and tell what it did or would do."""
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import AuthorityEffect

    path, body = order
    async with asking_admin(socket or running(state).server_admin) as admin:
        effect = AuthorityEffect.model_validate(await admin.post(path, body))
    if console.json:
        console.result(effect.model_dump())
        return
    console.table(
        ("kind", "was", "would be" if effect.dry_run else "is", "server", "key id"),
        [(one.kind, one.before, one.after, one.server, one.key_id) for one in effect.changes],
        empty="nothing changes",
    )
    signed = (("X.509", effect.x509_svids), ("JWT", effect.jwt_svids), ("WIT", effect.wit_svids))
    told = ", ".join(f"{number} {kind}-SVIDs" for kind, number in signed if number)
    console.say("signed by these and valid: ", told or "nothing")
    if effect.leaves_bundle:
        console.say("no longer in the bundle: ", ", ".join(effect.leaves_bundle))
    if effect.signs_at is not None:
        console.say("the new key signs from: ", effect.signs_at)
