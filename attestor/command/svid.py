"""sojourn svid: this process's X.509-SVIDs, as any workload gets them; and an operator's word that takes some back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import endpoint_options
from attestor.command.svid_direct import direct
from attestor.command.svid_revoke import revoke
from attestor.command.svid_write import write
from ca.runtime.terminal import Console, Style, Styled, command_options

if TYPE_CHECKING:
    from datetime import datetime

    from ca.spiffe.x509svid import X509Svid


@click.group()
def svid() -> None:
    """Fetch, watch or write this process's X.509-SVID; revoke what was given.

    The process is this command itself, as the kernel shows it to the node agent: its user decides what it gets.
    """


svid.add_command(revoke)
svid.add_command(direct)
svid.add_command(write)


@svid.command()
@click.option("--hint", help="Only the identity with this hint.")
@endpoint_options
@command_options
async def fetch(console: Console, hint: str | None, address: str | None, state: Path | None) -> None:
    """Fetch once and show what was given, never a key.

    Example: sojourn svid fetch --json
    """
    from attestor.client.errors import NoIdentity
    from attestor.command.running import asking_workload_api, workload_api
    from ca.runtime.clock import SystemClock
    from ca.runtime.terminal import when

    async with asking_workload_api(workload_api(address, state)) as api:
        found = [one for one in (await api.fetch_x509()).svids if hint is None or one.hint == hint]
    if not found:
        raise NoIdentity(f"this process has no identity with the hint `{hint}`")
    if console.json:
        console.result([_facts(one) for one in found])
        return
    now = SystemClock().now()
    console.table(
        ("SPIFFE ID", "hint", "expires", "instance", "serial"),
        [(str(one.id), one.hint, when(one.not_after, now), one.instance, _serial(one)) for one in found],
    )


@svid.command()
@endpoint_options
@command_options
async def watch(console: Console, address: str | None, state: Path | None) -> None:
    """Print a line for each identity, and one each time it is rotated or withdrawn; until Ctrl-C.

    While the Workload API can't be reached it waits for it.

    Example: sojourn svid watch
    """
    from attestor.client.source import X509Source
    from attestor.command.running import Waiting, workload_api
    from ca.runtime.clock import SystemClock

    clock, shown = SystemClock(), set[str]()
    async with X509Source.open(workload_api(address, state), clock, waiting=Waiting(console)) as source:
        async for _ in source.changed():
            fresh = [one for one in source.svids if _serial(one) not in shown]
            shown = {_serial(one) for one in source.svids}
            for one in fresh:
                _show(console, one, clock.now())
            if not source.svids:
                console.result({"withdrawn": True}, Styled("withdrawn", Style.BAD), "  this process has no identity")


def _show(console: Console, one: X509Svid, now: datetime) -> None:
    from ca.runtime.terminal import when

    words = f"  serial {_serial(one)}, expires {when(one.not_after, now)}, instance {one.instance or '-'}"
    console.result(_facts(one), Styled(str(one.id), Style.GOOD), words)


def _facts(one: X509Svid) -> dict[str, Any]:
    return {
        "spiffe_id": str(one.id),
        "hint": one.hint,
        "serial": _serial(one),
        "issuer": _issuer(one),
        "instance": one.instance,
        "not_before": one.not_before.isoformat(),
        "expires_at": one.not_after.isoformat(),
    }


def _serial(one: X509Svid) -> str:
    return f"{one.chain[0].serial_number:x}"


def _issuer(one: X509Svid) -> str:
    """The key id of the authority that signed it, as `sojourn svid revoke --issuer` wants it."""
    from ca.spiffe import leaf

    return (leaf.read(one.chain[0]).authority_key_id or b"").hex()
