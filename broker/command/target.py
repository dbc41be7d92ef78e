"""sojourn target: the systems secrets are made in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attestor.command.options import Length
from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, Exit, Style, Styled, command_options

if TYPE_CHECKING:
    from broker.client.broker import Broker
    from broker.command.target_file import WantedTarget
    from broker.wire.targets import FindingsTold


@click.group()
def target() -> None:
    """Add, list and check the systems secrets are made in."""


@target.command()
@click.argument("name")
@click.option("--host", help="The database server itself; behind a pooler a cut session proves nothing.")
@click.option("--port", type=click.IntRange(1, 65535), default=5432, show_default=True, help="Its port.")
@click.option("--database", required=True, help="The database agents log in to.")
@click.option("--also", multiple=True, metavar="DATABASE", help="A further database that roles may name.")
@click.option(
    "--standby", "standbys", multiple=True, metavar="HOST[:PORT]", help="A further endpoint; each is verified."
)
@click.option("--user", required=True, help="The broker's own user there.")
@click.option("--password-file", type=click.Path(path_type=Path), help="A private file that holds its password.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    metavar="NAME=GROUP[@DATABASE][:SENSITIVITY]",
    help="A role and the group whose rights it gives (several with commas); internal unless said. May be repeated.",
)
@click.option(
    "--tls", type=click.Choice(["off", "require", "verify"]), help="TLS to it (default: verify; off on loopback)."
)
@click.option("--tls-ca", type=click.Path(path_type=Path), help="The certificates `--tls verify` believes.")
@click.option(
    "--secret-kind",
    type=click.Choice(["scram-4096", "scram-few", "certificate"]),
    help="What agents log in with (default: scram-4096).",
)
@click.option("--ttl", type=Length(), help="The window the target itself ends a lease after (default: 10m).")
@click.option("--sql", is_flag=True, help="Only print the least SQL its owner has to run.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the broker looks (default: the running `up`'s).")
@operator_options
@command_options
async def add(
    console: Console,
    where: Where,
    *,
    name: str,
    host: str | None,
    port: int,
    database: str,
    also: tuple[str, ...],
    standbys: tuple[str, ...],
    user: str,
    password_file: Path | None,
    roles: tuple[str, ...],
    tls: str | None,
    tls_ca: Path | None,
    secret_kind: str | None,
    ttl: timedelta | None,
    sql: bool,
    folder: Path | None,
) -> int:
    """Add a PostgreSQL: write its settings, have the broker read them, and prove it with a probe user.

    When something is not well, nothing is kept and each finding says what to do.

    Example: sojourn target add orders-db --host db.example.org --database orders --user sojourn_broker
    --password-file /run/secrets/orders-db --role readonly=orders_readers

    Example: sojourn target add orders-db --database orders --user sojourn_broker --role readonly=orders_readers --sql
    """
    from broker.command.target_file import CERTIFICATE, WantedRole, WantedTarget, least_sql

    databases = tuple(dict.fromkeys((database, *also)))
    wanted = [WantedRole.parse(role, databases) for role in roles]
    if sql:
        groups = [group for role in wanted for group in role.groups]
        text = least_sql(user, databases, groups, certificates=secret_kind == CERTIFICATE)
        console.result({"sql": text}, *([] if console.json else [""]))
        if not console.json:
            click.echo(text)
        return Exit.OK
    if host is None or password_file is None:
        raise click.UsageError("--host and --password-file are needed to reach it (or --sql)")
    described = WantedTarget(
        name=name,
        host=host,
        port=port,
        database=database,
        user=user,
        password_file=_readable(password_file),
        tls=tls,
        tls_ca=tls_ca,
        ttl=ttl,
        roles=wanted,
        databases=also,
        standbys=standbys,
        secret_kind=secret_kind,
    )
    found = await _prove(console, where, described, folder)
    _show(console, found)
    return Exit.OK if found.well else Exit.FAILED


async def _prove(console: Console, where: Where, wanted: WantedTarget, folder: Path | None) -> FindingsTold:
    """Write, reload, check; whatever is not well takes everything back."""
    from broker.client.address import places_of, running
    from broker.command.doors import as_operator
    from broker.command.target_file import CERTIFICATE, put

    text = wanted.text()
    async with as_operator(where) as broker:
        chosen = folder or running(places_of(where.state)).state / "targets"
        path = put(chosen, wanted.name, text)
        kept = False
        try:
            with console.progress(f"proving {wanted.name} with a probe user"):
                await broker.reload_targets()
                found = await broker.check_target(wanted.name)
            kept = found.well
            if not kept and wanted.secret_kind == CERTIFICATE:
                console.say(Styled("ssl_ca_file", Style.BAD), f"  must hold\n{await broker.authority(wanted.name)}")
        finally:
            if not kept:
                await _take_back(broker, path)
    if kept:
        console.say(Styled("added", Style.GOOD), f"  {path}")
    else:
        console.say(Styled("not added", Style.BAD), "  nothing was kept; do what stands below and say it again")
    return found


async def _take_back(broker: Broker, path: Path) -> None:
    from broker.command.target_file import remove
    from ca.errors import Problem

    remove(path)
    try:
        await broker.reload_targets()
    except Problem as problem:
        click.echo(f"the broker could not be told that `{path}` is gone: {problem}", err=True)


@target.command()
@click.option("--confirm", is_flag=True, help="End the secrets that have no room in the new settings.")
@operator_options
@command_options
async def reload(console: Console, where: Where, *, confirm: bool) -> int:
    """Have the broker read its targets again; what would end secrets is held and listed, until it is confirmed.

    Example: sojourn target reload --confirm
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain

    async with as_operator(where) as broker:
        found = await broker.reload_targets(confirm=confirm)
    if console.json:
        console.result(plain(found))
    else:
        console.say(f"changed: {', '.join(found.changed) or 'nothing'}")
        if found.held:
            console.table(
                ("target", "role", "secrets", "tasks"),
                [(one.target, one.role, one.leases, one.tasks) for one in found.held],
            )
            word = f"{found.ending} are being ended" if confirm else "held: they live on until --confirm ends them"
            console.say(Styled(word, Style.WARN))
    return Exit.OK if confirm or not found.held else Exit.FAILED


@target.command("list")
@operator_options
@command_options
async def list_targets(console: Console, where: Where) -> None:
    """List targets and how the broker last met them.

    Example: sojourn target list
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain

    async with as_operator(where) as broker:
        found = (await broker.targets()).items
    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("target", "engine", "state", "roles", "note"),
        [(one.name, one.engine, one.state, ", ".join(one.roles), one.trouble) for one in found],
        empty="no target yet: sojourn target add",
    )


@target.command()
@click.argument("name")
@operator_options
@command_options
async def check(console: Console, where: Where, name: str) -> int:
    """Prove a target with a probe user that is made, logged in, ended and seen to be gone.

    Example: sojourn target check orders-db
    """
    from broker.command.doors import as_operator

    async with as_operator(where) as broker:
        with console.progress(f"checking {name}"):
            found = await broker.check_target(name)
    _show(console, found)
    return Exit.OK if found.well else Exit.FAILED


@target.command()
@click.argument("name")
@operator_options
@command_options
async def ca(console: Console, where: Where, name: str) -> None:
    """Print what a target's owner installs, so that it believes what the broker signs. Nothing of it is secret.

    Example: sojourn target ca orders-db > sojourn-clients.pem
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain

    async with as_operator(where) as broker:
        found = await broker.authority(name)
    if console.json:
        console.result(plain(found))
        return
    click.echo(found.authority.rstrip("\n"))


@target.command()
@click.argument("name")
@click.option("--forget", is_flag=True, help="Go back to what the settings name: its owner set a password by hand.")
@operator_options
@command_options
async def rotate(console: Console, where: Where, name: str, *, forget: bool) -> None:
    """Give the account the broker itself logs in as another password, which then rests sealed in the broker's store.

    From then on it counts instead of the `password` in the settings. The former one is dead, whoever used it is cut.
    A rotation that was interrupted is finished by itself.

    Example: sojourn target rotate orders-db
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain

    async with as_operator(where) as broker:
        if forget:
            await broker.forget_rotation(name)
            console.result({"target": name, "forgotten": True}, f"{name}: the password of the settings counts again")
            return
        with console.progress(f"rotating the password at {name}"):
            told = await broker.rotate_target(name)
    console.result(plain(told), f"{told.account} at {name} has another password; it was rotated {told.times} times")


def _show(console: Console, found: FindingsTold) -> None:
    from broker.command.tables import plain, verdict

    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("looked at", "is", "detail", "to do"),
        [(one.name, verdict(one), one.detail, None if one.well else one.fix) for one in found.findings],
        empty="this kind of target can't be checked",
    )


def _readable(path: Path) -> Path:
    """The file a password is in. It is not read into the settings: they only name it."""
    from ca.runtime.secret import Reference

    Reference("file", str(path.absolute())).read()
    return path


@target.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only list what no lease knows of.")
@operator_options
@command_options
async def adopt(console: Console, where: Where, name: str, *, dry_run: bool) -> None:
    """End a target's quarantine, after its store was restored, promoted or moved and you looked at what is there.

    What no lease knows of is then destroyed by the next sweeps, and what ran out is ended again.

    Example: sojourn target adopt orders-db --dry-run
    """
    from broker.client.asking import asking
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from broker.wire.targets import AdoptTarget

    async with as_operator(where) as broker:
        told = await broker.adopt_target(name, asking(AdoptTarget, dry_run=dry_run))
    known = ", ".join(told.strangers) or "none"
    done = "adopted" if told.adopted else "not adopted yet"
    console.result(plain(told), f"{name} is {done}; principals no lease knows of: {known}")
