"""sojourn token: join tokens, with which a node agent proves its machine once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import click

from attestor.command.options import Length, admin_options
from ca.runtime.terminal import Console, command_options


@click.group()
def token() -> None:
    """Create a join token for a node."""


@token.command()
@click.option("--node", metavar="NAME", help="Only for the node of this name (default: a name is made for it).")
@click.option("--ttl", type=Length(), default="10m", show_default=True, help="How long it may be redeemed.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write it to this new file (mode 0600) and don't print it."
)
@admin_options
@command_options
async def create(
    *, console: Console, node: str | None, ttl: timedelta, output: Path | None, socket: Path | None, state: Path | None
) -> None:
    """Create a join token; it is shown this once and redeemed once.

    It names the key of the server's root, so the node agent that brings it can't be lured to another server.

    Example: sojourn token create --node web-1 --output web-1.token
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import TokenAnswer, TokenRequest

    seconds = int(ttl.total_seconds())
    if not 1 <= seconds <= 24 * 3600:
        raise click.BadParameter("expected one second to 24 hours", param_hint="--ttl")
    wish = TokenRequest(node=node, ttl_seconds=seconds)
    with _private(output) as file:
        async with asking_admin(socket or running(state).server_admin) as admin:
            made = TokenAnswer.model_validate(await admin.post("/v1/tokens", wish.model_dump()))
        if file is not None:
            file.write(f"{made.token}\n")
    told = made.model_dump(exclude={"token"} if output else None) | ({"output": str(output)} if output else {})
    console.result(told, f"written to {output}" if output else made.token)
    if not console.json:
        whose = f"for the node `{made.node}`" if made.node else "for any node"
        click.echo(f"one use, {whose}, until {made.expires_at}", err=True)


@contextmanager
def _private(path: Path | None) -> Iterator[TextIO | None]:
    """A new file only this user can read, made before the token is: no token is lost because a file can't be made.

    Raises:
        Conflict: it can't be made, or is there already.
    """
    from ca.errors import Conflict

    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Conflict(f"can't make the file `{path}`: {(error.strerror or 'unknown reason').lower()}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
