"""sojourn jwt: JWT-SVIDs of this process, and judging those of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attestor.command.options import endpoint_options
from ca.runtime.terminal import Console, command_options

if TYPE_CHECKING:
    from ca.spiffe.id import SpiffeId

_LONGEST = 64 * 1024


@click.group()
def jwt() -> None:
    """Fetch or verify a JWT-SVID."""


@jwt.command()
@click.option("--audience", "audiences", multiple=True, required=True, help="Who will verify it; may be given again.")
@click.option("--id", "identity", metavar="SPIFFE-ID", help="Of this identity (default: of the first).")
@endpoint_options
@command_options
async def fetch(
    console: Console, audiences: Sequence[str], identity: str | None, address: str | None, state: Path | None
) -> None:
    """Fetch a token and print it alone on stdout: whoever reads it may use it until it expires.

    Example: curl -H "Authorization: Bearer $(sojourn jwt fetch --audience orders)" https://orders.example.org
    """
    from attestor.command.running import asking_workload_api, workload_api

    wanted = _spiffe_id(identity)
    async with asking_workload_api(workload_api(address, state)) as api:
        found = (await api.fetch_jwt(audiences, wanted))[0]
    told = {
        "spiffe_id": str(found.id),
        "hint": found.hint,
        "audience": list(found.audience),
        "expires_at": found.expires_at.isoformat(),
        "token": found.token,
    }
    console.result(told, found.token)


@jwt.command()
@click.argument("token", nargs=-1, type=click.UNPROCESSED)
@click.option("--audience", required=True, help="Who you are: a token meant for somebody else is refused.")
@endpoint_options
@command_options
async def verify(
    console: Console, token: Sequence[str], audience: str, address: str | None, state: Path | None
) -> None:
    """Verify TOKEN, or one from stdin when TOKEN is `-`, and show what it says; the token is never repeated.

    Other users of this machine can see what stands on a command line: prefer `-`.

    Example: sojourn jwt verify - --audience orders < token
    """
    from attestor.command.running import asking_workload_api, workload_api
    from ca.runtime.clock import SystemClock
    from ca.spiffe import jwtsvid

    text = _token(token)
    async with asking_workload_api(workload_api(address, state)) as api:
        bundles = await api.fetch_jwt_bundles()
    found = jwtsvid.verify(text, audience, bundles, SystemClock().now())
    told = {
        "spiffe_id": str(found.id),
        "audience": list(found.audience),
        "expires_at": found.expires_at.isoformat(),
    }
    claims = dict(found.claims)
    console.result(told | {"claims": claims if console.json else json.dumps(claims, ensure_ascii=False)})


def _token(said: Sequence[str]) -> str:
    """The token; click would repeat a second one in its error, this doesn't."""
    if len(said) != 1:
        raise click.UsageError("expected one TOKEN, or `-` for one from stdin")
    return sys.stdin.read(_LONGEST).strip() if said[0] == "-" else said[0]


def _spiffe_id(text: str | None) -> SpiffeId | None:
    from ca.errors import Malformed
    from ca.spiffe.id import SpiffeId

    try:
        return None if text is None else SpiffeId.parse(text)
    except Malformed as error:
        raise click.BadParameter(str(error), param_hint="--id") from None
